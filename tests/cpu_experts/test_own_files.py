"""Kernels on disk are code: only what nobody else can have written is read."""

import logging
import os

import pytest

from hybrid.cpu_experts import own_files
from hybrid.cpu_experts.own_files import read_own

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX owners")


@pytest.fixture(autouse=True)
def nothing_said_yet():
    own_files._warn_once.cache_clear()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own" / "x.kernel"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"code")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_an_own_file_is_read(file, mode, caplog):
    file.chmod(mode)
    assert read_own(file) == b"code"
    assert not caplog.records


@pytest.mark.parametrize("mode", [0o020, 0o002])
@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_others_may_write_is_ignored_and_said_once(file, what, mode, caplog):
    target = file if what == "file" else file.parent
    target.chmod(0o700 | mode)
    with caplog.at_level(logging.WARNING):
        assert read_own(file) is None
        assert read_own(file) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"compiled kernels in {file.parent} are ignored" in caplog.text


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_another_user_owns_is_ignored(file, what, monkeypatch):
    target = file if what == "file" else file.parent
    if os.geteuid() == 0:
        os.chown(target, 12345, -1)
    else:
        user = os.geteuid()
        monkeypatch.setattr(own_files.os, "geteuid", lambda: user + 1)
    assert read_own(file) is None


def test_a_file_of_root_counts_for_every_user(file, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of root's")
    monkeypatch.setattr(own_files.os, "geteuid", lambda: 12345)
    assert read_own(file) == b"code"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
def test_what_is_no_regular_file_is_absent(file, make):
    """A FIFO without a writer would block whoever opens it to read."""
    file.unlink()
    make(file)
    assert read_own(file) is None


def test_an_absent_file_is_an_os_error(file):
    file.unlink()
    with pytest.raises(FileNotFoundError):
        read_own(file)
