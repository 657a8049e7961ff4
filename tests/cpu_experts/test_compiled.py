"""numba's code: compiled once however many ask, kept on disk, and trusted no further."""

import hashlib
import logging
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from numba import types

from hybrid.cpu_experts import compiled, kernel_files, own_files


@pytest.fixture(autouse=True)
def nothing_said_yet():
    kernel_files._warn_once.cache_clear()
    own_files._warn_once.cache_clear()


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
    monkeypatch.setattr(kernel_files, "_directories", lambda: [tmp_path])
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


@pytest.mark.parametrize("changed", ["the function's own package", "cpu_experts"])
def test_a_changed_source_is_compiled_anew(folder, compilations, monkeypatch, changed):
    build()
    right, own = kernel_files.digest, changed != "cpu_experts"
    here = Path(__file__).parent
    monkeypatch.setattr(
        kernel_files, "digest", lambda at: "other" if (at == here) == own else right(at)
    )
    build()
    assert compilations == ["add-one", "add-one"]
    assert len(list(folder.iterdir())) == 2


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


def test_a_lack_of_directories_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(kernel_files, "_directories", list)
    for _ in range(3):
        build()
    assert len(caplog.records) == 1


def test_an_unwritable_directory_costs_only_the_next_start(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(kernel_files, "_directories", lambda: [tmp_path / "file" / "below"])
    with caplog.at_level(logging.WARNING):
        assert build()(41) == 42
    assert "the next start recompiles" in caplog.text
