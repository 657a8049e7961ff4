"""What an object's instructions need, held against what its instruction set announces.

Nothing is executed: every instruction is decoded and its CPUID features, registers and flow of
control are looked up in iced-x86's tables. A kernel is a leaf: it calls nothing and jumps only to
itself. Fused multiply-adds are forbidden by the numerics (design §4.1), whoever has them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hybrid.cpu_experts.isas import ISAS
from tests.emulation import elf

ALWAYS = {"INTEL8086", "INTEL186", "INTEL286", "INTEL386", "INTEL486", "X64", "CMOV",
          "MULTIBYTENOP", "SSE", "SSE2"}  # every x86-64; SSE: prefetches  # fmt: skip
NAMES = {  # LLVM's name of a feature -> the names that the disassembler has for it
    "avx2": {"AVX", "AVX2"}, "fma": {"FMA"}, "f16c": {"F16C"}, "bmi": {"BMI1"}, "bmi2": {"BMI2"},
    "lzcnt": {"LZCNT"}, "movbe": {"MOVBE"}, "avxvnni": {"AVX_VNNI"}, "avx512f": {"AVX512F"},
    "avx512bw": {"AVX512BW"}, "avx512cd": {"AVX512CD"}, "avx512dq": {"AVX512DQ"},
    "avx512vl": {"AVX512VL"}, "avx512vnni": {"AVX512_VNNI"}, "amx-tile": {"AMX_TILE"},
    "amx-int8": {"AMX_INT8"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chosen:
    """What an instruction set is chosen for."""

    vector: str  # the widest registers
    key: str  # the instruction of the integer modes


CHOSEN = {
    "avx2": Chosen("ymm", "vpmaddubsw"),
    "avxvnni": Chosen("ymm", "vpdpbusd"),
    "avx512bw": Chosen("zmm", "vpmaddubsw"),
    "avx512vnni": Chosen("zmm", "vpdpbusd"),
    "amx": Chosen("zmm", "tdpbssd"),
}
FUSED = ("vfmadd", "vfmsub", "vfnmadd", "vfnmsub", "v4fmadd", "v4fnmadd", "vdpbf16", "tdpbf16")
DIRECT = {"UNCONDITIONAL_BRANCH", "CONDITIONAL_BRANCH"}
INSIDE = DIRECT | {"NEXT", "RETURN"}
WIDTHS = ("xmm", "ymm", "zmm")


@dataclass(frozen=True, slots=True)
class Instruction:
    address: int  # in its section
    length: int
    mnemonic: str
    valid: bool
    features: frozenset[str]
    registers: frozenset[str]
    flow: str
    target: int  # of a direct branch


def instructions(section: elf.Section) -> Iterator[Instruction]:
    """Decode a section of code from its first byte to its last."""
    import iced_x86 as iced

    features, flows = _names(iced.CpuidFeature), _names(iced.FlowControl)
    registers = {n: name.lower() for n, name in _names(iced.Register).items()}
    formatter = iced.Formatter(iced.FormatterSyntax.INTEL)
    for it in iced.Decoder(64, section.data):
        yield Instruction(
            it.ip,
            it.len,
            formatter.format_mnemonic(it),
            it.code != iced.Code.INVALID,
            frozenset(features[f] for f in it.cpuid_features()),
            frozenset(registers[it.op_register(i)] for i in _register_operands(it)),
            flows[it.flow_control],
            it.near_branch_target,
        )


def _register_operands(it: Any) -> list[int]:
    import iced_x86 as iced

    return [i for i in range(it.op_count) if it.op_kind(i) == iced.OpKind.REGISTER]


def _names(enum: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


def faults(data: bytes, isa: str, mode: str) -> list[str]:
    """What the object of an instruction set and mode must not contain, or lacks; a line each."""
    object_ = elf.read(data)
    found = [(s, it) for s in object_.code for it in instructions(s)]
    all_of_it = [it for _, it in found]
    flows = INSIDE | {"INDIRECT_BRANCH"} if _jump_table(object_) else INSIDE
    return [
        *(f"{it.address:#x} {it.mnemonic}: {why}" for _, it in found for why in _wrong(it, isa)),
        *(
            f"{it.address:#x} {it.mnemonic}: {it.flow} out of the object"
            for section, it in found
            if it.flow not in flows or (it.flow in DIRECT and not 0 <= it.target < section.size)
        ),
        *(f"{name} is to come from elsewhere" for name in object_.undefined),
        *_lacking(all_of_it, CHOSEN[isa], mode),
        *([] if any(s.name == "rows16" for s in object_.symbols) else ["there is no rows16"]),
    ]


def _jump_table(object_: elf.Elf) -> bool:
    """Whether constants hold addresses of the code: a `switch`, whose jumps go nowhere else."""
    return any(
        object_.sections[r.section].name.startswith(".rodata")
        and object_.sections[object_.symbols[r.symbol].section].flags & elf.EXECUTABLE
        for r in object_.relocations
    )


def announced(isa: str) -> set[str]:
    """What a host must have, in the disassembler's names, before the runtime loads a kernel."""
    return ALWAYS.union(*(NAMES[feature] for feature in ISAS[isa].needs))


def _wrong(it: Instruction, isa: str) -> Iterator[str]:
    if not it.valid:
        yield "no instruction"
        return
    if beyond := it.features - announced(isa):
        yield f"needs {', '.join(sorted(beyond))}"
    if it.mnemonic.startswith(FUSED):
        yield "a fused multiply-add"
    wider = WIDTHS[WIDTHS.index(CHOSEN[isa].vector) + 1 :]
    if any(register.startswith(wider) for register in it.registers):
        yield f"registers wider than {CHOSEN[isa].vector}"


def _lacking(found: list[Instruction], chosen: Chosen, mode: str) -> Iterator[str]:
    if mode != "bf16" and chosen.key not in {it.mnemonic for it in found}:
        yield f"{chosen.key} is nowhere"
    if not any(r.startswith(chosen.vector) for it in found for r in it.registers):
        yield f"{chosen.vector} registers are nowhere used"
