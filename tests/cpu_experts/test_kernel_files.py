"""Machine code on disk: what is read back is what was written, or nothing."""

import hashlib
import logging
import os
import stat

import pytest

from hybrid.cpu_experts import kernel_files, own_files
from hybrid.cpu_experts.kernel_files import KEPT, read, write

CONTENT = bytes(range(256)) * 16
posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")


@pytest.fixture(autouse=True)
def nothing_said_yet():
    kernel_files._warn_once.cache_clear()
    own_files._warn_once.cache_clear()


@pytest.fixture
def directories(tmp_path, monkeypatch):
    """Two directories that exist, the better one first."""
    both = [tmp_path / "first", tmp_path / "second"]
    for directory in both:
        directory.mkdir(mode=0o700)
    monkeypatch.setattr(kernel_files, "_directories", lambda: both)
    return both


@pytest.fixture
def folder(directories):
    return directories[0]


@pytest.fixture
def kept(folder):
    """The file of a written kernel."""
    write("kernel", "key", CONTENT)
    (path,) = folder.iterdir()
    return path


def test_what_was_written_is_read(kept, directories):
    assert read("kernel", "key") == CONTENT
    assert kept.read_bytes() == hashlib.sha256(CONTENT).digest() + CONTENT
    assert not list(directories[1].iterdir())
    if os.name == "posix":
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_name_and_key_tell_kernels_apart(kept):
    assert read("kernel", "another") is None
    assert read("another", "key") is None
    write("kernel", "another", b"other")
    assert read("kernel", "key") == CONTENT
    assert read("kernel", "another") == b"other"


@pytest.mark.parametrize("part", ["__version__ of numba", "__version__ of llvmlite", "sources"])
def test_what_decides_the_content_is_in_the_name(kept, part, monkeypatch):
    if part == "sources":
        monkeypatch.setattr(kernel_files, "digest", lambda folder: "other")
    else:
        name, _, module = part.partition(" of ")
        monkeypatch.setattr(getattr(kernel_files, module), name, "0.0")
    assert read("kernel", "key") is None


def test_the_digest_follows_every_source_below(tmp_path):
    digest = kernel_files.digest.__wrapped__
    (tmp_path / "below").mkdir()
    seen = [digest(tmp_path)]
    for file, text in (("a.py", "1"), ("a.py", "2"), ("below/b.py", "1"), ("below/b.py", "2")):
        (tmp_path / file).write_text(text)
        seen.append(digest(tmp_path))
    assert len(set(seen)) == 5
    (tmp_path / "notes.txt").write_text("no source")
    assert digest(tmp_path) == seen[-1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:32],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:-1] + bytes([data[-1] ^ 0x80]),
        lambda data: bytes(len(data)),
    ],
    ids=["empty", "short", "no content", "truncated", "longer", "digest", "last bit", "zeros"],
)
def test_a_file_that_is_not_whole_is_absent_and_replaced(kept, spoil):
    kept.write_bytes(spoil(kept.read_bytes()))
    assert read("kernel", "key") is None
    write("kernel", "key", CONTENT)
    assert read("kernel", "key") == CONTENT


def test_a_spoilt_file_does_not_hide_a_good_one_elsewhere(kept, directories):
    copy = directories[1] / kept.name
    copy.write_bytes(kept.read_bytes())
    copy.chmod(0o600)
    kept.write_bytes(b"spoilt")
    assert read("kernel", "key") == CONTENT


@posix
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
def test_what_is_no_file_is_absent(kept, make):
    """Nor does a FIFO without a writer make its reader wait."""
    kept.unlink()
    make(kept)
    assert read("kernel", "key") is None


@posix
def test_a_fifo_is_replaced(kept):
    kept.unlink()
    os.mkfifo(kept)
    write("kernel", "key", CONTENT)
    assert read("kernel", "key") == CONTENT


@posix
def test_a_link_to_somebody_elses_file_is_not_followed_into_trust(kept, tmp_path):
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    target = kept.rename(other / "target")
    target.chmod(0o666)
    kept.symlink_to(target)
    assert read("kernel", "key") is None


@posix
@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_others_may_write_is_not_read(kept, what, caplog):
    (kept if what == "file" else kept.parent).chmod(0o777)
    with caplog.at_level(logging.WARNING):
        assert read("kernel", "key") is None
        assert read("kernel", "key") is None
    assert len(caplog.records) == 1
    assert "are ignored" in caplog.text


@posix
@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_another_user_owns_is_not_read(kept, what, monkeypatch):
    if os.geteuid() == 0:
        os.chown(kept if what == "file" else kept.parent, 12345, -1)
    else:
        user = os.geteuid()
        monkeypatch.setattr(own_files.os, "geteuid", lambda: user + 1)
    assert read("kernel", "key") is None


@posix
def test_kernels_are_kept_where_they_will_be_read(directories):
    """Not in a directory that all may write to; under umask 0 too."""
    shared, own = directories
    shared.chmod(0o777)
    own.rmdir()
    before = os.umask(0)
    try:
        write("kernel", "key", CONTENT)
    finally:
        os.umask(before)
    assert read("kernel", "key") == CONTENT
    assert not list(shared.iterdir())
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_directory_is_passed_over(directories):
    directories[0].chmod(0o500)
    write("kernel", "key", CONTENT)
    assert read("kernel", "key") == CONTENT
    assert len(list(directories[1].iterdir())) == 1


def test_a_directory_that_cannot_be_made_is_passed_over(tmp_path, directories):
    (tmp_path / "file").write_text("")
    directories[0] = tmp_path / "file" / "below"
    write("kernel", "key", CONTENT)
    assert read("kernel", "key") == CONTENT
    assert len(list(directories[1].iterdir())) == 1


def test_kernels_in_a_read_only_directory_are_read(kept, caplog):
    kept.parent.chmod(0o500)
    try:
        assert read("kernel", "key") == CONTENT
    finally:
        kept.parent.chmod(0o700)
    assert not caplog.records


def refuse_to_write(*_, **__):
    raise OSError(30, "Read-only file system")


def test_a_read_only_file_system_is_said_once(directories, monkeypatch, caplog):
    monkeypatch.setattr(kernel_files.tempfile, "NamedTemporaryFile", refuse_to_write)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            write("kernel", "key", CONTENT)
    assert read("kernel", "key") is None
    assert [record.getMessage() for record in caplog.records] == [
        "no writable directory for compiled kernels; the next start recompiles"
    ]


def test_a_lack_of_directories_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(kernel_files, "_directories", list)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            write("kernel", "key", CONTENT)
    assert len(caplog.records) == 1


def test_a_full_disk_leaves_nothing_behind(directories, monkeypatch, caplog):
    class Full:
        def __init__(self, **options):
            self._file = (options["dir"] / "x.tmp").open("wb")
            self.name = self._file.name

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._file.close()

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernel_files.tempfile, "NamedTemporaryFile", Full)
    write("kernel", "key", CONTENT)
    assert not any(list(directory.iterdir()) for directory in directories)
    assert "the next start recompiles" in caplog.text


def test_old_versions_are_forgotten(folder):
    for version in range(KEPT + 3):
        write("kernel", version, CONTENT)
        (path,) = [path for path in folder.iterdir() if path.stat().st_mtime > 1e6]
        os.utime(path, (version, version))
    assert len(list(folder.iterdir())) == KEPT
    assert [v for v in range(KEPT + 3) if read("kernel", v) is not None] == [3, 4, 5, 6]


def test_only_versions_of_the_same_kernel_are_forgotten(folder):
    write("kernel-int8", "key", b"another kernel")
    (folder / "kernel-notes.kernel").write_bytes(b"no kernel of ours")
    for version in range(KEPT + 3):
        write("kernel", version, CONTENT)
    assert read("kernel-int8", "key") == b"another kernel"
    assert (folder / "kernel-notes.kernel").exists()
    assert len(list(folder.iterdir())) == KEPT + 2
