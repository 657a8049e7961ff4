"""Compiles Triton kernels for cards that are not here, and says what they need of them.

    CHIPS     the cards as their makers' data sheets describe them ("paper numbers")
    build     kernel, argument types, capability -> Built: registers, stack, shared memory, code
    Launch    one launch of a kernel at the sizes of a model: what build needs, bytes and operations

Nothing here needs a GPU or its driver: Triton brings ptxas and cuobjdump along. Fusion of
multiplications and additions is off (design §4.1), as it is wherever kernels are launched. Triton
is imported when something is built, so that the module can be had where it is not installed.
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hybrid.errors import KernelError

Unit = Literal["int8", "bf16", "fp32", "int32"]  # what does a launch's operations


@dataclass(frozen=True, slots=True)
class Chip:
    """One card by its data sheet: dense rates, without sparsity, at boost clock."""

    name: str
    capability: int  # 89 is sm_89
    shared_bytes: int  # most shared memory of one block
    sms: int
    memory_gb_s: float
    int8_tops: float  # tensor cores, int32 sums
    bf16_tflops: float  # tensor cores, fp32 sums
    fp32_tflops: float  # plain units, a fused multiply-add counted as two
    int32_tops: float  # plain units, an instruction of a lane counted as one

    def rate(self, unit: Unit) -> float:
        """Operations a second of `unit`; fp32 without fusion has half of the data sheet's."""
        tera = {
            "int8": self.int8_tops,
            "bf16": self.bf16_tflops,
            "fp32": self.fp32_tflops / 2,
            "int32": self.int32_tops,
        }
        return tera[unit] * 1e12


_KB = 1024
CHIPS = (
    Chip("A100 80GB", 80, 163 * _KB, 108, 2039, 624, 312, 19.5, 9.7),
    Chip("RTX 3090", 86, 99 * _KB, 82, 936, 284, 71, 35.6, 8.9),
    Chip("RTX 4090", 89, 99 * _KB, 128, 1008, 660.6, 165.2, 82.6, 20.6),
    Chip("H100 SXM", 90, 227 * _KB, 132, 3350, 1979, 989, 66.9, 16.7),
    Chip("B200", 100, 227 * _KB, 148, 8000, 4500, 2250, 80, 20),
    Chip("RTX 5090", 120, 99 * _KB, 170, 1792, 838, 209.5, 104.8, 52.4),
    Chip("RTX PRO 6000", 120, 99 * _KB, 188, 1792, 1007.6, 503.8, 126, 63),
)
CAPABILITIES = tuple(sorted({chip.capability for chip in CHIPS}))


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch at a model's sizes.

    `signature` maps every argument that is no constexpr to Triton's name of its type: "*fp32",
    "i32"; a suffix ":16" says that the address or number is a multiple of 16, which Triton
    finds out by itself when it launches. `bytes` and `operations` count what must be moved and
    done, once each; a multiplication and an addition are two operations, but of int32 each
    instruction of a lane is one. `also`: what other units do at the same time.
    """

    name: str
    kernel: Any  # what @triton.jit made
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    grid: tuple[int, ...]
    bytes: int
    operations: int
    unit: Unit = "fp32"
    num_warps: int = 4
    num_stages: int = 3
    also: Mapping[Unit, int] = field(default_factory=dict)

    def seconds(self, chip: Chip) -> float:
        """The roofline: the slowest of memory and units at the data sheet's rates."""
        moving = self.bytes / (chip.memory_gb_s * 1e9)
        work = {self.unit: self.operations, **self.also}
        return max(moving, *(count / chip.rate(unit) for unit, count in work.items()))


@dataclass(frozen=True, slots=True)
class Built:
    """A compiled kernel: what one thread and one block of it take."""

    registers: int  # of a thread
    spills: int  # bytes of stack of a thread: where registers that do not fit are kept
    shared_bytes: int  # of a block
    ptx: str
    cubin: bytes


def build(
    kernel: Any,
    signature: Mapping[str, str],
    constexprs: Mapping[str, Any],
    capability: int,
    num_warps: int = 4,
    num_stages: int = 3,
) -> Built:
    """Compile what @triton.jit made for `capability` (89 is sm_89); see Launch for the types.

    Raises KernelError where Triton interprets kernels, which then have nothing to compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if not isinstance(kernel, triton.runtime.JITFunction):
        raise KernelError(
            f"{kernel} is interpreted; unset TRITON_INTERPRET before the kernels are imported"
        )
    names = kernel.arg_names
    types = {name: signature.get(name, "constexpr").partition(":")[0] for name in names}
    aligned = {
        (at,): [["tt.divisibility", 16]]
        for at, name in enumerate(names)
        if signature.get(name, "").endswith(":16")
    }
    source = ASTSource(kernel, types, constexprs=dict(constexprs), attrs=aligned)
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": False}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    cubin = compiled.asm["cubin"]
    registers, stack = _resources(cubin)
    return Built(registers, stack, compiled.metadata.shared, compiled.asm["ptx"], cubin)


def build_launch(launch: Launch, capability: int) -> Built:
    """`build` with what a Launch says."""
    sizes = launch.num_warps, launch.num_stages
    return build(launch.kernel, launch.signature, launch.constexprs, capability, *sizes)


def disassembled(cubin: bytes) -> str:
    """The machine code (SASS) as text."""
    return _cuobjdump(cubin, "-sass")


def _resources(cubin: bytes) -> tuple[int, int]:
    """(registers, bytes of stack) of the one kernel in a cubin."""
    usage = _cuobjdump(cubin, "--dump-resource-usage")
    found = re.findall(r"REG:(\d+) STACK:(\d+)", usage)
    if len(found) != 1:
        raise KernelError(f"cuobjdump describes {len(found)} kernels, not 1: {usage.strip()!r}")
    registers, stack = found[0]
    return int(registers), int(stack)


def _cuobjdump(cubin: bytes, option: str) -> str:
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, option, str(path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
