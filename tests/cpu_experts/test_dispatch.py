"""Which kernel runs, that it is checked, that its code contracts nothing, and that it is kept."""

import hashlib
import logging
import os
import pickle
import re
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest
from numba import njit, types
from numba.core.errors import TypingError

import hybrid.cpu_experts as package
from hybrid.cpu_experts import compiled, dispatch, own_files, selfcheck, simd
from hybrid.cpu_experts.native import store_f32
from hybrid.errors import ConfigError, KernelError

FUSED = re.compile(r"\b(vfn?m(add|sub)\w*|fmadd|fmla|fmsub)\b")


@pytest.fixture(autouse=True)
def nothing_said_yet():
    compiled._warn_once.cache_clear()
    own_files._warn_once.cache_clear()


@pytest.fixture
def plain_cpu(monkeypatch):
    """A host without AVX2."""
    none = frozenset({"sse2"})
    monkeypatch.setattr(simd, "host_features", lambda: none)
    monkeypatch.setattr(dispatch, "host_features", lambda: none)
    monkeypatch.setattr(dispatch, "available_isas", dispatch.available_isas.__wrapped__)


def test_the_fastest_available_is_selected():
    assert package.available_isas()[0] == "portable"
    assert dispatch.select(None) == dispatch.select("auto") == package.available_isas()[-1]
    assert dispatch.select("portable") == "portable"
    with pytest.raises(ConfigError, match=r"isa is 'amx'; this machine has portable"):
        dispatch.select("amx")


def test_a_host_without_avx2_runs_the_portable_kernel(plain_cpu):
    assert dispatch.available_isas() == ("portable",)
    assert dispatch.select(None) == "portable"
    with pytest.raises(ConfigError, match=r"isa is 'avx2'; this machine has portable$"):
        dispatch.select("avx2")


def use_avx2(operations):
    @njit
    def use(address):
        line = operations.load_i32x8(address, 0)
        pairs = operations.multiply_add_bytes(operations.as_bytes(line), operations.as_bytes(line))
        return operations.sum_lanes(operations.multiply_add_words(pairs, pairs))

    use.compile((types.intp,))


def test_an_instruction_the_host_lacks_is_refused_before_llvm_sees_it():
    """LLVM would abort the process. numba remembers what it typed, so the module is a new one."""
    fresh = module_from_spec(spec_from_file_location("fresh_simd", simd.__file__))
    fresh.__spec__.loader.exec_module(fresh)
    fresh.host_features = lambda: frozenset({"sse2"})
    with pytest.raises(TypingError, match="this CPU lacks avx2"):
        use_avx2(fresh)


@pytest.mark.skipif("avx2" not in simd.host_features(), reason="this CPU has no AVX2")
def test_an_instruction_the_host_has_is_compiled():
    use_avx2(simd)


@pytest.mark.parametrize("name", ["auto", "int8", "bf16"])
def test_modes(name):
    assert dispatch.select_mode(name) == ("bf16" if name == "bf16" else "int8")


def test_warm_up_reports_every_kernel():
    seen = []
    package.warm_up(progress=seen.append)
    assert [p.done for p in seen] == list(range(seen[-1].total + 1))
    assert {(p.phase, p.unit, p.total) for p in seen} == {("kernels", "kernels", seen[-1].total)}


@pytest.mark.parametrize("mode", ["int8", "bf16"])
@pytest.mark.parametrize("isa", package.available_isas())
def test_the_self_check_passes(isa, mode):
    package.verify(isa, mode)


def test_the_self_check_sees_a_wrong_kernel(monkeypatch):
    def zeros(block, groups, acts, stride, rows, n, out, out_stride):
        for i in range(n):
            for row in range(16):
                store_f32(out + i * out_stride, row, np.float32(0))

    broken = dispatch._Isa(frozenset(), {"int8": zeros})
    monkeypatch.setattr(compiled, "_directories", list)
    monkeypatch.setitem(dispatch._ISAS, "broken", broken)
    monkeypatch.setattr(dispatch, "available_isas", lambda: ("portable", "broken"))
    with pytest.raises(KernelError, match=r"the broken kernel differs .* in 864 of 864 outputs"):
        selfcheck.verify("broken")


# ---- no contraction


def assembly(monkeypatch, compile_one):
    monkeypatch.setattr(compiled, "_directories", list)  # code from disk cannot be inspected
    return compile_one()._library.get_asm_str()


PIECES = [
    pytest.param(lambda: dispatch.compiled_kernel.__wrapped__("int8"), id="kernel-int8"),
    pytest.param(lambda: dispatch.compiled_kernel.__wrapped__("bf16"), id="kernel-bf16"),
    *(
        pytest.param(
            lambda isa=isa, mode=mode: dispatch.compiled_rows16.__wrapped__(isa, mode),
            id=f"{isa}-{mode}",
        )
        for isa in package.available_isas()
        for mode in ("int8", "bf16")
    ),
]


@pytest.mark.parametrize("piece", PIECES)
def test_nothing_is_fused(monkeypatch, piece):
    code = assembly(monkeypatch, piece)
    assert re.search(r"\bv?mul[ps]s|fmul", code)
    assert not FUSED.search(code)


@pytest.mark.skipif("fma" not in simd.host_features(), reason="this CPU has no FMA to find")
def test_a_fused_multiply_add_would_be_seen():
    @njit(fastmath={"contract"})
    def contracted(a, b, c):
        return a * b + c

    contracted.compile((types.float32,) * 3)
    assert FUSED.search(next(iter(contracted.inspect_asm().values())))


# ---- the disk


def add_one(x):
    return x + 1


def test_threads_that_ask_together_wait_for_one_build():
    builds = []

    @compiled.once
    def slow(key):
        builds.append(key)
        time.sleep(0.05)
        return object()

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(slow, [1, 1, 2, 1, 2, 1]))) == 2
    assert sorted(builds) == [1, 2]


def build():
    return compiled.function("add-one", types.int64(types.int64), add_one)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "_directories", lambda: [tmp_path])
    return tmp_path


@pytest.fixture
def compilations(monkeypatch):
    """Names of the functions that were compiled rather than read."""
    names = []
    save = compiled._Stored.save_overload

    def record(self, sig, cres):
        names.append(self._name)
        save(self, sig, cres)

    monkeypatch.setattr(compiled._Stored, "save_overload", record)
    return names


def test_the_second_start_reads_the_first_ones_code(folder, compilations):
    assert build()(41) == build()(41) == 42
    assert compilations == ["add-one"]
    assert [path.suffix for path in folder.iterdir()] == [".kernel"]


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-1], lambda data: b"", lambda data: data[:40]]
)
def test_a_damaged_file_is_replaced(folder, compilations, spoil):
    build()
    (path,) = folder.iterdir()
    path.write_bytes(spoil(path.read_bytes()))
    assert build()(41) == 42
    assert build()(41) == 42
    assert compilations == ["add-one", "add-one"]


def test_a_changed_source_is_compiled_anew(folder, compilations, monkeypatch):
    build()
    monkeypatch.setattr(compiled, "_digest", lambda folder: "other")
    build()
    assert compilations == ["add-one", "add-one"]
    assert len(list(folder.iterdir())) == 2


def test_old_versions_are_forgotten(folder, monkeypatch):
    for version in range(compiled.KEPT + 3):
        monkeypatch.setattr(compiled, "_digest", lambda folder, version=version: str(version))
        build()
    assert len(list(folder.iterdir())) == compiled.KEPT


def test_the_digest_follows_every_source(tmp_path):
    digest = compiled._digest.__wrapped__
    (tmp_path / "a.py").write_text("one")
    first = digest(tmp_path)
    (tmp_path / "a.py").write_text("two")
    assert digest(tmp_path) != first


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not a pickle",
        pickle.dumps("no compile result"),
        pickle.dumps((1, 2)),
        pickle.dumps((None,) * 11),
        b"cno_such_module\nname\n.",
        b"cbuiltins\nno_such_name\n.",
    ],
)
def test_a_whole_file_of_something_else_is_replaced(folder, compilations, body):
    build()
    (path,) = folder.iterdir()
    path.write_bytes(hashlib.sha256(body).digest() + body)
    assert build()(41) == 42
    assert build()(41) == 42
    assert compilations == ["add-one", "add-one"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_in_a_kernels_place_is_replaced(folder, compilations):
    build()
    (path,) = folder.iterdir()
    path.unlink()
    os.mkfifo(path)
    assert build()(41) == 42
    assert path.is_file()
    assert compilations == ["add-one", "add-one"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_a_kernel_others_may_have_written_is_not_run(folder, compilations, caplog):
    build()
    (path,) = folder.iterdir()
    path.chmod(0o666)
    assert build()(41) == 42
    assert compilations == ["add-one", "add-one"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert "are ignored" in caplog.text


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_kernels_are_kept_where_they_will_be_read(tmp_path, monkeypatch, compilations):
    """Under umask 0 too: not in a directory that all may write to, but in a new one."""
    shared, own = tmp_path / "shared", tmp_path / "new" / "own"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setattr(compiled, "_directories", lambda: [shared, own])
    before = os.umask(0)
    try:
        assert build()(41) == build()(41) == 42
    finally:
        os.umask(before)
    assert compilations == ["add-one"]
    assert not list(shared.iterdir())
    assert len(list(own.iterdir())) == 1


def test_a_lack_of_directories_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(compiled, "_directories", list)
    for _ in range(3):
        build()
    assert len(caplog.records) == 1


def test_an_unwritable_directory_costs_only_the_next_start(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compiled, "_directories", lambda: [tmp_path / "file" / "below"])
    with caplog.at_level(logging.WARNING):
        assert build()(41) == 42
    assert "the next start recompiles" in caplog.text


def test_a_full_disk_costs_only_the_next_start(folder, monkeypatch, caplog):
    class Full:
        def __init__(self, **options):
            self._file = open(folder / "x.tmp", "wb")  # noqa: PTH123, SIM115
            self.name = self._file.name

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._file.close()

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiled.tempfile, "NamedTemporaryFile", Full)
    assert build()(41) == 42
    assert list(folder.iterdir()) == []
    assert "the next start recompiles" in caplog.text
