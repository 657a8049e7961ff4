"""The emulated CPU itself: it runs what it should, and each offence that it looks for is seen."""

import numpy as np
import pytest

from tests.emulation.assembler import assemble
from tests.emulation.bochs import MODELS
from tests.emulation.elf import ElfError, read
from tests.emulation.machine import Buffer
from tests.emulation.needs import needs_emulator
from tests.emulation.runner import Call, EmulatorError, Job, run

pytestmark = [needs_emulator, pytest.mark.emulated]

CODE = """
copy:
  mov rcx, rdx
  rep movsb
  ret
read_behind:
  mov al, [rdi + 32]
  ret
read_before:
  mov al, [rdi - 1]
  ret
write_before:
  mov byte ptr [rdi - 1], 0
  ret
write_behind:
  mov byte ptr [rdi + 32], 0
  ret
write:
  mov byte ptr [rdi], 0
  ret
prefetch_behind:
  prefetcht0 [rdi + 32]
  prefetchnta [rdi + 4096]
  ret
clobber:
  xor r12, r12
  ret
pop_too_much:
  pop rax
  pop rcx
  jmp rax
write_to_caller:
  mov qword ptr [rsp + 8], 0
  ret
backwards:
  std
  ret
toward_zero:
  mov dword ptr [rsp - 8], 0x7F80
  ldmxcsr [rsp - 8]
  ret
upper:
  vpcmpeqb ymm3, ymm3, ymm3
  ret
upper_of_no_matter:
  vpcmpeqb xmm3, xmm3, xmm3
  vzeroupper
  ret
endless:
  jmp endless
undefined:
  ud2
  ret
"""
BYTES = np.arange(32, dtype=np.uint8)


def outcomes(model, *calls, code=CODE):
    return run(Job(model, (assemble(code),), calls))


def call(symbol, writable=False, at_end=True, branch_limit=None):
    return Call((Buffer(BYTES, writable, at_end),), 0, symbol, branch_limit)


EXPECTED = [
    (call("read_behind"), "read of 0x"),
    (call("read_behind", at_end=False), None),  # a canary: only the other placement sees it
    (call("read_before"), None),
    (call("read_before", at_end=False), "read of 0x"),
    (call("write_before", writable=True), "bytes beside buffer 0 were overwritten"),
    (call("write_before", writable=True, at_end=False), "write to 0x"),
    (call("write_behind", writable=True), "write to 0x"),
    (call("write_behind", writable=True, at_end=False), "bytes beside buffer 0 were overwritten"),
    (call("write"), "write to 0x"),
    (call("write", writable=True), None),
    (call("prefetch_behind"), None),
    (call("clobber"), "clobbered r12"),
    (call("pop_too_much"), "clobbered rsp"),
    (call("write_to_caller"), "wrote to the caller's stack"),
    (call("backwards"), "left the direction flag set"),
    (call("toward_zero"), "changed the rounding mode"),
    (call("upper"), "returned without vzeroupper"),
    (call("upper_of_no_matter"), None),
    (call("endless", branch_limit=1000), "more branches than allowed"),
    (call("undefined"), "#UD"),
]


def test_every_offence_is_seen_and_nothing_else():
    found = outcomes("haswell", *(one for one, _ in EXPECTED))
    for outcome, (one, text) in zip(found, EXPECTED, strict=True):
        assert len(outcome.offences) == (text is not None), (one.symbol, outcome.offences)
        assert text is None or text in outcome.offences[0], one.symbol


def test_arrays_go_in_and_come_out():
    out = np.zeros((4, 8), np.uint8)
    good = Call((Buffer(out, writable=True), Buffer(BYTES), 32), symbol="copy")
    long = Call((Buffer(out, writable=True), Buffer(BYTES), 33), symbol="copy")
    copied, beyond = outcomes("haswell", good, long)
    assert copied.offences == ()
    assert np.array_equal(copied.arrays[0], BYTES.reshape(4, 8))
    assert "#PF" in beyond.offences[0]


FEATURES = {
    "avx2": "vpaddd ymm0, ymm1, ymm2",
    "fma": "vfmadd231ps ymm0, ymm1, ymm2",
    "avxvnni": "{vex} vpdpbusd ymm0, ymm1, ymm2",
    "avx512bw": "vpaddb zmm0, zmm1, zmm2",
    "avx512vnni": "vpdpbusd zmm0, zmm1, zmm2",
    "avx512bf16": "vdpbf16ps zmm0, zmm1, zmm2",
    "amx": "tilerelease",
}
HAVE = {
    "haswell": {"avx2", "fma"},
    "arrow_lake": {"avx2", "fma", "avxvnni"},
    "skylake_x": {"avx2", "fma", "avx512bw"},
    "tigerlake": {"avx2", "fma", "avx512bw", "avx512vnni"},
    "sapphire_rapids": set(FEATURES) - {"amx"},  # that is what the soft AMX is for
}


@pytest.mark.parametrize("model", MODELS)
def test_a_model_runs_what_it_has_and_refuses_the_rest(model):
    code = "".join(f"{name}:\n{line}\nvzeroupper\nret\n" for name, line in FEATURES.items())
    found = outcomes(model, *(Call((), symbol=name) for name in FEATURES), code=code)
    refused = {
        name for name, one in zip(FEATURES, found, strict=True) if "#UD" in "".join(one.offences)
    }
    assert refused == set(FEATURES) - HAVE[model]


def test_a_call_elsewhere_cannot_be_linked():
    with pytest.raises(EmulatorError, match="ElfError: the object needs elsewhere from elsewhere"):
        outcomes("haswell", code="f:\ncall elsewhere\nret")


def test_what_is_not_an_object_is_refused():
    with pytest.raises(ElfError, match="not a little-endian ELF64 object"):
        read(b"MZ" + bytes(64))
