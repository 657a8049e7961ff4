"""No kernel holds an instruction that its CPU may lack, and each holds the one it is made for."""

import pytest

from hybrid.cpu_experts.machine_code import object_code
from tests.emulation.assembler import assemble
from tests.emulation.cases import MODES
from tests.emulation.gate import CHOSEN, faults
from tests.emulation.needs import needs_disassembler

pytestmark = needs_disassembler


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("isa", CHOSEN)
def test_every_kernel_keeps_to_its_instruction_set(isa, mode):
    assert faults(object_code(isa, mode), isa, mode) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("isa", "gate"),
    [
        ("avxvnni", "avx2"),
        ("avx512bw", "avx2"),
        ("avx512bw", "avxvnni"),
        ("avx512vnni", "avx512bw"),
        ("amx", "avx512vnni"),
    ],
)
def test_a_kernel_does_not_pass_for_a_lesser_instruction_set(isa, gate, mode):
    """Where it is the same code, as bf16 may be, there is nothing to see."""
    code = object_code(isa, mode)
    if code == object_code(gate, mode):
        pytest.skip(f"the {mode} kernel of {isa} is that of {gate}")
    assert faults(code, gate, mode)


RIGHT = {
    "avx2": "vpmaddubsw ymm0, ymm1, ymm2",
    "avxvnni": "{vex} vpdpbusd ymm0, ymm1, ymm2",
    "avx512bw": "vpmaddubsw zmm0, zmm1, zmm2",
    "avx512vnni": "vpdpbusd zmm0, zmm1, zmm2",
    "amx": "tdpbssd tmm0, tmm1, tmm2\nvpaddd zmm0, zmm1, zmm2",
}


def planted(isa, fault):
    """A small object that is in order but for one line."""
    return assemble(f"rows16:\n{RIGHT[isa]}\n{fault}\nvzeroupper\nret\n")


@pytest.mark.parametrize("isa", RIGHT)
def test_an_orderly_object_passes(isa):
    assert (
        faults(planted(isa, "jnz rows16\nprefetcht0 [rdi]\nshlx rax, rax, rcx"), isa, "int8") == []
    )


@pytest.mark.parametrize(
    ("isa", "fault", "seen"),
    [
        ("avx2", "{vex} vpdpbusd ymm0, ymm1, ymm2", "needs AVX_VNNI"),
        ("avx2", "vpaddd xmm16, xmm1, xmm2", "needs AVX512F, AVX512VL"),
        ("avx2", "vfmadd231ps ymm0, ymm1, ymm2", "a fused multiply-add"),
        ("avx2", "vaddps zmm0, zmm1, zmm2", "registers wider than ymm"),
        ("avx2", "vgf2p8affineqb ymm0, ymm1, ymm2, 0", "needs GFNI"),
        ("avxvnni", "vpdpbusd ymm0, ymm1, ymm2", "needs AVX512VL, AVX512_VNNI"),
        ("avxvnni", "vpdpbssd ymm0, ymm1, ymm2", "needs AVX_VNNI_INT8"),
        ("avx512bw", "vpdpbusd zmm0, zmm1, zmm2", "needs AVX512_VNNI"),
        ("avx512bw", "vfnmadd132ps zmm0, zmm1, zmm2", "a fused multiply-add"),
        ("avx512bw", "vfmsub213ss xmm0, xmm1, xmm2", "a fused multiply-add"),
        ("avx512vnni", "vpermb zmm0, zmm1, zmm2", "needs AVX512_VBMI"),
        ("avx512vnni", "vdpbf16ps zmm0, zmm1, zmm2", "needs AVX512_BF16"),
        ("avx512vnni", "tilerelease", "needs AMX_TILE"),
        ("amx", "tdpbf16ps tmm0, tmm1, tmm2", "needs AMX_BF16"),
        ("amx", "{vex} vpdpbusd ymm0, ymm1, ymm2", "needs AVX_VNNI"),
        ("avx2", "call memset", "CALL out of the object"),
        ("avx2", "call memset", "memset is to come from elsewhere"),
        ("avx2", "jmp rax", "INDIRECT_BRANCH out of the object"),
        ("avx2", ".byte 0xEB, 0x70", "UNCONDITIONAL_BRANCH out of the object"),
        ("avx2", "syscall", "out of the object"),
        ("avx2", "ud2", "EXCEPTION out of the object"),
        ("avx2", ".byte 0x06", "no instruction"),
    ],
)
def test_a_planted_instruction_is_seen(isa, fault, seen):
    assert any(seen in line for line in faults(planted(isa, fault), isa, "int8"))


@pytest.mark.parametrize("isa", RIGHT)
def test_a_missing_key_instruction_is_seen(isa):
    plain = assemble("rows16:\nvpaddd ymm0, ymm1, ymm2\nvzeroupper\nret\n")
    key = CHOSEN[isa].key
    assert f"{key} is nowhere" in faults(plain, isa, "int8")
    assert f"{key} is nowhere" not in faults(plain, isa, "bf16")


def test_missing_vectors_and_a_missing_symbol_are_seen():
    scalar = assemble("row16:\nmov rax, rdi\nret\n")
    found = faults(scalar, "avx512bw", "bf16")
    assert found == ["zmm registers are nowhere used", "there is no rows16"]
