"""Assembly text -> ELF object, by LLVM's own assembler: for what no compiler would emit."""

import llvmlite.binding as llvm

TRIPLE = "x86_64-unknown-linux-gnu"


def assemble(text: str, cpu: str = "sapphirerapids") -> bytes:
    """Intel syntax, `;` or a new line between instructions, labels as `name:`; all are global."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    names = [line.partition(":")[0].strip() for line in text.splitlines() if ":" in line]
    lines = [".intel_syntax noprefix", ".text", *(f".globl {name}" for name in names)]
    lines += text.splitlines()
    source = "\n".join(f'module asm "{line}"' for line in lines)
    module = llvm.parse_assembly(f'target triple = "{TRIPLE}"\n{source}\n')
    target = llvm.Target.from_triple(TRIPLE)
    options = {"opt": 0, "reloc": "pic", "codemodel": "small"}
    return target.create_target_machine(cpu=cpu, **options).emit_object(module)
