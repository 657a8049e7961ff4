"""`prepare` where there is no room, or something else in the way: one line, and no harm."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hybrid.cache import direct_io, part_file
from hybrid.cache import prepare as module
from hybrid.cache.file_source import FileSource
from hybrid.cache.part_file import part_path
from hybrid.cache.prepare import prepare
from hybrid.errors import CheckpointError, PlacementError
from hybrid.tiny import write_tiny
from tests.cache import record_cases as cases
from tests.cache.prepare_cases import (
    RECORDS,
    SHAPE,
    StoppedError,
    damage,
    refusal,
    stop_after,
)
from tests.cache.record_cases import PAGE


@pytest.fixture
def full_after(monkeypatch):
    """Make the disk full: writing fails after some records, with some errno."""

    def install(records, code=errno.ENOSPC):
        left = [records]

        def write(fd, buffers, offset):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(code, os.strerror(code))
            return real(fd, buffers, offset)

        real = os.pwritev
        monkeypatch.setattr(direct_io.os, "pwritev", write)
        return lambda: left.__setitem__(0, 1 << 30)

    return install


# No room.


def test_a_full_disk_is_one_line_and_keeps_the_work(model, output, contents, want, full_after):
    mended = full_after(5)
    said = refusal(PlacementError, model, output)
    missing = (RECORDS - 5) * contents.stride / 1e9
    assert f"{output.parent} is full (No space left on device): {missing:,.3f} GB more" in said
    assert "what is written is kept" in said
    assert not output.exists()
    mended()
    assert prepare(model, output).written == RECORDS - 5
    assert output.read_bytes() == want


def test_a_sync_that_fails_is_not_believed_later(model, output, want, monkeypatch, often):
    """After a failed fdatasync the kernel calls the pages clean; the next one would succeed."""
    real, calls = os.fdatasync, []

    def sync(fd):
        calls.append(fd)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd)

    monkeypatch.setattr(part_file.os, "fdatasync", sync)
    refusal(PlacementError, model, output)
    journal = np.frombuffer(part_path(output).read_bytes(), "<u8", RECORDS, PAGE)
    assert np.count_nonzero(journal) == 4
    prepare(model, output)
    assert output.read_bytes() == want


def test_room_is_asked_for_before_anything_is_written(model, output, want, monkeypatch):
    real = os.statvfs(output.parent)

    def statvfs(blocks):
        fields = list(real)
        fields[1], fields[4] = 512, blocks  # f_frsize, f_bavail
        return lambda path: os.statvfs_result(fields)

    monkeypatch.setattr(module.os, "statvfs", statvfs(len(want) // 512 - 1))
    said = refusal(PlacementError, model, output)
    assert f"{output} needs {len(want) / 1e9:,.3f} GB more but {output.parent} has" in said
    assert list(output.parent.iterdir()) == []
    monkeypatch.setattr(module.os, "statvfs", statvfs(-(-len(want) // 512)))
    prepare(model, output)


def test_what_a_part_has_already_needs_no_room(model, output, contents, monkeypatch, often):
    with pytest.raises(StoppedError):
        prepare(model, output, progress=stop_after(11))
    free = os.statvfs_result([4096, 4096, 9, 9, 9, 9, 9, 9, 0, 255])  # 36 KiB: less than the file
    monkeypatch.setattr(module.os, "statvfs", lambda path: free)
    assert prepare(model, output).written == 1


def test_a_limit_on_the_size_of_files_is_one_line(model, output, want):
    code = (
        "import resource, sys; from pathlib import Path; from hybrid.cache.prepare import prepare\n"
        "from hybrid.errors import PlacementError\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(want) // 2}, {len(want) // 2}))\n"
        "try: prepare(sys.argv[1], sys.argv[2])\n"
        "except PlacementError as error: print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(model), str(output)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True,
    )  # fmt: skip
    assert "x.records.part may not become so large" in ran.stdout
    assert "ulimit -f" in ran.stdout
    prepare(model, output)
    assert output.read_bytes() == want


@pytest.fixture
def small_disk(tmp_path, want):
    """A real file system with room for half of the file."""
    place = tmp_path / "disk"
    place.mkdir()
    size = len(want) // 2 // PAGE * PAGE
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "kimi-local-test", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a tmpfs is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(model, small_disk, want, monkeypatch, often):
    target = small_disk / "x.records"
    assert "GB free; make room" in refusal(PlacementError, model, target)
    assert list(small_disk.iterdir()) == []
    monkeypatch.setattr(module, "_require_room", lambda *_: None)
    assert "is full (No space left on device)" in refusal(PlacementError, model, target)
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert 0 < prepare(model, target).written < RECORDS
    assert target.read_bytes() == want


@pytest.mark.parametrize(
    ("code", "said"), [(errno.EROFS, "Read-only file system"), (errno.EACCES, "Permission denied")]
)
def test_a_place_that_cannot_be_written(model, output, monkeypatch, code, said):
    def refuse(path, flags, *mode):
        if flags & os.O_RDWR:
            raise OSError(code, os.strerror(code))
        return real(path, flags, *mode)

    real = os.open
    monkeypatch.setattr(direct_io.os, "open", refuse)
    line = refusal(PlacementError, model, output)
    assert said in line
    assert "give another place with --output" in line


def test_a_folder_that_is_not_there(model, tmp_path):
    said = refusal(PlacementError, model, tmp_path / "absent" / "x.records")
    assert "No such file or directory; give another place with --output" in said


def test_a_disk_that_fails_while_it_is_written(model, output, full_after):
    full_after(5, errno.EIO)
    assert f"cannot write {part_path(output)}: Input/output error" in refusal(
        PlacementError, model, output
    )


# What lies in the way.


@pytest.mark.parametrize("name", ["x.records", "x.records.part"])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["symlink", "dangling", "fifo", "folder"])
def test_what_is_no_file_is_refused(model, output, tmp_path, name, force, kind):
    path, other = output.with_name(name), tmp_path / "other"
    if kind == "symlink":
        other.write_bytes(b"precious")
    if kind in ("symlink", "dangling"):
        path.symlink_to(other)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    said = refusal((CheckpointError, PlacementError), model, output, force=force)
    assert str(path) in said
    assert ("is a symlink" in said) == (kind in ("symlink", "dangling"))
    assert other.exists() == (kind == "symlink")
    assert kind != "symlink" or other.read_bytes() == b"precious"
    assert set(tmp_path.iterdir()) == {path, other} if kind == "symlink" else {path}


def test_a_device_is_refused(model):
    assert "not a regular file" in refusal(CheckpointError, model, "/dev/full")


@pytest.fixture
def other_model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("other") / "model"
    return write_tiny(directory, SHAPE, seed=4, vision=False)


def test_the_file_of_another_model_is_replaced_by_force_only(model, other_model, whole, want):
    said = refusal(CheckpointError, other_model, whole)
    assert "other weights of the same sizes" in said
    assert "--force" in said
    assert whole.read_bytes() == want
    prepare(other_model, whole, force=True)
    assert whole.read_bytes() != want
    FileSource(whole, cases.contents(other_model)).close()


def test_the_part_of_another_model_is_replaced_by_force_only(model, other_model, output, want):
    with pytest.raises(StoppedError):
        prepare(other_model, output, progress=stop_after(7))
    assert "other weights" in refusal(CheckpointError, model, output)
    assert prepare(model, output, force=True).written == RECORDS
    assert output.read_bytes() == want


def test_force_keeps_what_fits(model, output, want, often):
    with pytest.raises(StoppedError):
        prepare(model, output, force=True, progress=stop_after(8))
    assert prepare(model, output, force=True).written == RECORDS - 8
    assert output.read_bytes() == want


@pytest.mark.parametrize("name", ["x.records", "x.records.part"])
@pytest.mark.parametrize("force", [False, True])
def test_a_file_of_something_else_is_never_replaced(model, output, name, force):
    """`--output model-00001.safetensors --force` must not cost a shard."""
    path = output.with_name(name)
    path.write_bytes(b"a thesis" * 1000)
    assert "is not a record file" in refusal(CheckpointError, model, output, force=force)
    assert path.read_bytes() == b"a thesis" * 1000
    assert list(output.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["x.records.part", "x.records"])
def test_two_at_once(model, output, contents, want, name):
    """The second says so and harms nothing; when the first is gone, it goes on."""
    if name == "x.records":
        output.write_bytes(want)
        damage(output, contents.offset(3))
    fd = os.open(output.with_name(name), os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    said = refusal(PlacementError, model, output)
    assert "another `kimi-local prepare` is writing" in said
    os.close(fd)
    prepare(model, output)
    assert output.read_bytes() == want


def test_a_part_renamed_while_it_was_waited_for(model, output, monkeypatch):
    """Opened, then renamed by its owner, then locked: not ours to write to."""
    real, locked = part_file.fcntl.flock, []

    def lock(fd, operation):
        if not locked:
            part_path(output).rename(output.with_name("elsewhere"))
        locked.append(os.fstat(fd).st_ino)
        real(fd, operation)

    monkeypatch.setattr(part_file.fcntl, "flock", lock)
    prepare(model, output)
    assert len(set(locked)) == 2
    assert output.stat().st_ino == locked[1]
    assert output.with_name("elsewhere").stat().st_size == 0


def test_a_file_that_appears_meanwhile_is_not_replaced(model, output, want, monkeypatch):
    def room(target, contents):
        target.write_bytes(b"faster")

    monkeypatch.setattr(module, "_require_room", room)
    assert "has just appeared; run the same command again" in refusal(PlacementError, model, output)
    assert output.read_bytes() == b"faster"
    assert not part_path(output).exists()


def test_a_disk_that_takes_part_of_a_page_is_full(model, output, monkeypatch):
    monkeypatch.setattr(direct_io.os, "pwritev", lambda fd, buffers, offset: 512)
    assert "is full (No space left on device)" in refusal(PlacementError, model, output)
