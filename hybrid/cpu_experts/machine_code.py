"""From a micro-kernel's LLVM IR to machine code in memory, by way of an ELF object that is kept.

    isas.py, rows/ -> IR -> object -> disk (kernel_files.py)
                               \\-> linked into this process -> address of rows16

The object is all there is: what tests disassemble and emulate is what runs. Compiling needs no
particular CPU; linking for execution is refused unless the host has what the kernel needs, because
LLVM and the CPU end the process where Python would raise.
"""

import platform
import sys
from functools import cache

import llvmlite.binding as llvm

from hybrid.cpu_experts import kernel_files
from hybrid.cpu_experts.compiled import once
from hybrid.cpu_experts.isas import ISAS, Isa, executable
from hybrid.cpu_experts.rows.kernel import build
from hybrid.cpu_experts.rows.modes import MODES, Name
from hybrid.errors import KernelError

TRIPLE = "x86_64-unknown-linux-gnu"  # ELF and the System V calling convention
SYMBOL = "rows16"


def supported() -> bool:
    """Whether this process can run ELF objects for x86-64."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def object_code(isa: str, mode: Name) -> bytes:
    """The ELF object of `rows16` for an instruction set and an activation mode.

    Read from disk if it is there, else compiled and kept. Works on any host that LLVM's x86 back
    end is built into.
    """
    name = f"rows16-{isa}-{mode}"
    key = (TRIPLE, ISAS[isa].level, ISAS[isa].features)
    kept = kernel_files.read(name, key)
    if kept is None:
        kept = _compile(ISAS[isa], mode)
        kernel_files.write(name, key, kept)
    return kept


def assembly(isa: str, mode: Name) -> str:
    """The same as text, for reading and for llvm-mca."""
    machine, module = _lower(ISAS[isa], mode)
    return str(machine.emit_assembly(module))


@once
def rows16(isa: str, mode: Name) -> int:
    """Address of `rows16` in this process."""
    if isa not in executable():
        raise KernelError(f"this machine cannot execute {isa}; choose another isa")
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(object_code(isa, mode)))
    engine.finalize_object()
    _ENGINES.append(engine)
    return int(engine.get_function_address(SYMBOL))


_ENGINES: list[llvm.ExecutionEngine] = []  # own the code that runs; never freed


def _engine() -> llvm.ExecutionEngine:
    _initialise()
    machine = llvm.Target.from_default_triple().create_target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


@cache
def _initialise() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()


def _compile(isa: Isa, mode: Name) -> bytes:
    machine, module = _lower(isa, mode)
    return bytes(machine.emit_object(module))


def _lower(isa: Isa, mode: Name) -> tuple[llvm.TargetMachine, llvm.ModuleRef]:
    """Optimise the kernel's IR for its own target; the shapes are what they are meant to be, so
    only constants are folded and dead blocks removed."""
    _initialise()
    target = llvm.Target.from_triple(TRIPLE)
    machine = target.create_target_machine(
        cpu=isa.level, features=isa.features, opt=3, reloc="pic", codemodel="small"
    )
    module = llvm.parse_assembly(build(isa.simd, MODES[mode], isa.many))
    module.verify()
    passes = llvm.create_new_module_pass_manager()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    options = llvm.create_pipeline_tuning_options(speed_level=0)
    passes.run(module, llvm.create_pass_builder(machine, options))
    return machine, module
