"""Objects of machine code: the same bytes every time, for every instruction set, on any host."""

import logging
import re
import subprocess
import sys

import pytest

from hybrid.cpu_experts import isas, kernel_files, machine_code
from hybrid.cpu_experts.isas import ISAS
from hybrid.cpu_experts.rows.modes import MODES
from hybrid.cpu_experts.rows.vocabulary import Simd
from hybrid.errors import KernelError
from tests.contracts.files import ROOT
from tests.cpu_experts.native_call import call_rows16, same_bits
from tests.cpu_experts.rows_cases import flat, random_case, wanted

FUSED = re.compile(r"\bvfn?m(add|sub)\w*")
PAIRS = [(isa, mode) for isa in ISAS for mode in MODES]
KEY_INSTRUCTION = {
    "avx2": "vpmaddubsw", "avxvnni": "vpdpbusd", "avx512bw": "vpmaddubsw",
    "avx512vnni": "vpdpbusd", "amx": "tdpbssd",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_files, "_directories", lambda: [tmp_path])
    return tmp_path


@pytest.fixture
def compilations(monkeypatch):
    """(isa, mode) of the objects that were compiled rather than read."""
    made, compile_ = [], machine_code._compile

    def noting(isa, mode):
        made.append((isa.name, mode))
        return compile_(isa, mode)

    monkeypatch.setattr(machine_code, "_compile", noting)
    return made


@pytest.mark.parametrize(("isa", "mode"), PAIRS)
def test_an_object_is_the_same_bytes_every_time(isa, mode):
    """Whatever this host is, and whether it was compiled now or read from disk."""
    first = machine_code._compile(ISAS[isa], mode)
    assert first == machine_code.object_code(isa, mode)
    assert first[:4] == b"\x7fELF"
    assert first[4:6] == b"\x02\x01"  # 64 bits, little endian
    assert int.from_bytes(first[18:20], "little") == 62  # x86-64


def test_every_process_makes_the_same_bytes():
    """No address, no order of a hash, no name of the moment is in them."""
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from hybrid.cpu_experts.machine_code import _compile\n"
        "from hybrid.cpu_experts.isas import ISAS\n"
        "sys.stdout.buffer.write(_compile(ISAS['avx2'], 'int8'))"
    )

    def made(seed):
        command, environment = [sys.executable, "-c", code], {"PYTHONHASHSEED": seed}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)

    first = made("1").stdout
    assert first[:4] == b"\x7fELF"
    assert made("2").stdout == first


def test_objects_differ():
    """But for bf16, which has one for 8 lanes and one for 16."""
    objects = {pair: machine_code.object_code(*pair) for pair in PAIRS}
    exact = {data for (_, mode), data in objects.items() if mode == "bf16"}
    assert len(exact) == 2
    assert len(set(objects.values()) - exact) == 2 * len(ISAS)


@pytest.mark.parametrize(("isa", "mode"), PAIRS)
def test_the_instruction_that_an_isa_is_named_for_is_used_and_nothing_is_fused(isa, mode):
    """Also in what this host cannot execute; all these targets have FMA."""
    code = machine_code.assembly(isa, mode)
    assert (KEY_INSTRUCTION[isa] in code) == (mode != "bf16")
    assert re.search(r"\bvmulps\b", code)
    assert not FUSED.search(code)


def test_a_contracted_kernel_would_be_seen(monkeypatch):
    monkeypatch.setattr(Simd, "scaled", fused)
    assert FUSED.search(machine_code.assembly("avx2", "int8"))


def fused(simd, total, dot, scale):
    value = simd.code.b.sitofp(dot, simd.floats)
    return simd.code.call(f"llvm.fma.v{simd.lanes}f32", simd.floats, value, scale, total)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("mode", MODES)
def test_a_foreign_instruction_set_is_never_linked(isa, mode, monkeypatch):
    """LLVM and the CPU would end the process."""
    monkeypatch.setattr(machine_code, "executable", lambda: ())
    with pytest.raises(
        KernelError, match=f"^this machine cannot execute {isa}; choose another isa$"
    ):
        machine_code.rows16.__wrapped__(isa, mode)


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa not in isas.executable()])
def test_what_this_host_cannot_execute_is_refused(isa):
    with pytest.raises(KernelError, match=f"cannot execute {isa}"):
        machine_code.rows16(isa, "int8")


@pytest.mark.parametrize(("system", "machine"), [("darwin", "x86_64"), ("linux", "aarch64")])
def test_only_linux_on_x86_64_runs_these_objects(system, machine, monkeypatch):
    monkeypatch.setattr(machine_code.sys, "platform", system)
    monkeypatch.setattr(machine_code.platform, "machine", lambda: machine)
    assert not machine_code.supported()


# ---- the disk


def test_the_second_start_reads_the_first_ones_object(folder, compilations):
    first = machine_code.object_code("avx512vnni", "int8")
    assert machine_code.object_code("avx512vnni", "int8") == first
    assert compilations == [("avx512vnni", "int8")]
    (path,) = folder.iterdir()
    assert path.name.startswith("rows16-avx512vnni-int8-")
    assert path.read_bytes()[32:] == first


def test_every_instruction_set_and_mode_has_a_file_of_its_own(folder, compilations, monkeypatch):
    monkeypatch.setattr(machine_code, "_compile", lambda isa, mode: f"{isa.name} {mode}".encode())
    for _ in range(2):
        for isa, mode in PAIRS:
            assert machine_code.object_code(isa, mode) == f"{isa} {mode}".encode()
    assert len(list(folder.iterdir())) == len(PAIRS)


def spoil_code(data):
    """One bit of an instruction, in the middle of the object."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("spoil", [spoil_code, lambda data: data[:-1], lambda data: b""])
def test_a_damaged_object_is_compiled_again_and_runs(folder, compilations, spoil):
    """A changed bit would run as another instruction: it is never linked."""
    right = machine_code.object_code("avx2", "int8")
    (path,) = folder.iterdir()
    path.write_bytes(spoil(path.read_bytes()))
    assert machine_code.object_code("avx2", "int8") == right
    assert machine_code.object_code("avx2", "int8") == right
    assert compilations == [("avx2", "int8")] * 2


@pytest.mark.parametrize("isa", isas.executable())
def test_an_object_from_disk_runs(folder, compilations, isa):
    machine_code.object_code(isa, "int8")
    blocks, acts, index = random_case("int8", 5, 7, 3)
    address = machine_code.rows16.__wrapped__(isa, "int8")
    assert same_bits(call_rows16(address, flat(blocks), acts, index), wanted("int8", 5, 7, 3))
    assert compilations == [(isa, "int8")]


def test_without_any_directory_it_is_compiled_every_time_and_said_once(
    monkeypatch, compilations, caplog
):
    monkeypatch.setattr(kernel_files, "_directories", list)
    kernel_files._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            machine_code.object_code("avx2", "bf16")
    assert compilations == [("avx2", "bf16")] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "no writable directory for compiled kernels; the next start recompiles"
    ]
