"""`prepare` on a file that is there: checked, and mended where it is damaged."""

import errno
import os
import shutil

import pytest

from hybrid.cache import direct_io
from hybrid.cache import prepare as module
from hybrid.cache.file_source import FileSource
from hybrid.cache.prepare import prepare
from hybrid.errors import CheckpointError
from tests.cache import record_cases as cases
from tests.cache.prepare_cases import (
    RECORDS,
    damage,
    refusal,
    stop_after,
)
from tests.cache.record_cases import PAGE
from tests.checkpoint_files import all_tensors, rewrite


def test_a_whole_file_is_checked_and_left(model, whole, want, writes):
    seen = []
    done = prepare(model, whole, progress=seen.append)
    assert (done.written, done.mended, done.verified, done.write_gb_s) == (0, 0, True, None)
    assert [p.phase for p in seen] == ["verify"] * RECORDS
    assert writes == []
    assert whole.read_bytes() == want
    assert list(whole.parent.iterdir()) == [whole]


def test_without_verifying_only_the_head_is_read(model, whole, contents):
    damage(whole, contents.offset(0))
    done = prepare(model, whole, verify=False, progress=stop_after(0))
    assert not done.verified


def test_damaged_records_are_mended(model, whole, contents, want, writes):
    damage(whole, contents.offset(3), contents.offset(8) + 2 * PAGE)
    done = prepare(model, whole)
    assert (done.written, done.mended) == (0, 2)
    assert whole.read_bytes() == want
    assert writes == [contents.offset(3), contents.offset(8)]


def test_a_source_says_what_mends_it(model, whole, contents):
    damage(whole, contents.offset(3))
    source = FileSource(whole, contents)
    with pytest.raises(CheckpointError, match="run `kimi-local prepare` on the model to mend it"):
        source.read(*contents.place(3), cases.slot(contents))
    prepare(model, whole)
    source.read(*contents.place(3), cases.slot(contents))  # the file that is open is the mended one
    source.close()


def test_unreadable_sectors_are_written_again(model, whole, contents, want, monkeypatch):
    """A sector that cannot be read is often replaced by the disk when it is written."""
    bad = {contents.offset(5)}
    real_read, real_write = os.preadv, os.pwritev

    def read(fd, buffers, offset):
        if offset in bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_read(fd, buffers, offset)

    def write(fd, buffers, offset):
        bad.discard(offset)
        return real_write(fd, buffers, offset)

    monkeypatch.setattr(direct_io.os, "preadv", read)
    monkeypatch.setattr(direct_io.os, "pwritev", write)
    assert prepare(model, whole).mended == 1
    assert whole.read_bytes() == want


def test_a_disk_that_stays_bad_is_one_line(model, whole, contents, monkeypatch):
    damage(whole, contents.offset(3))
    monkeypatch.setattr(module, "write_pages", lambda *_: None)
    said = refusal(CheckpointError, model, whole)
    assert "1 records read back other than they were written; check the disk" in said


def test_a_write_that_goes_wrong_is_found_and_mended(model, output, want, monkeypatch):
    """What verifying is for: the disk takes the data and keeps something else, once."""
    real, spoiled = os.pwritev, []

    def write(fd, buffers, offset):
        if len(spoiled) == 4:
            buffers = [memoryview(bytes(len(buffers[0])))]
            aligned = cases.pages(len(buffers[0]), "a test")
            buffers = [aligned.data]
        spoiled.append(offset)
        return real(fd, buffers, offset)

    monkeypatch.setattr(direct_io.os, "pwritev", write)
    done = prepare(model, output)
    assert done.mended == 1
    assert output.read_bytes() == want


def test_a_checkpoint_that_was_changed_does_not_mend(model, tmp_path):
    """Equal in every sample of the fingerprint, but not the one that was prepared."""
    own = shutil.copytree(model, tmp_path / "own")
    path = prepare(own).path
    contents = cases.contents(own)
    tensors = all_tensors(own)
    hidden = [n for n in sorted(tensors) if ".experts." in n and n.endswith("packed")]
    for name in hidden:  # the samples are 4 KiB from the middle, so all of a tiny tensor but these
        before = dict(tensors)
        dtype, shape, data = tensors[name]
        tensors[name] = dtype, shape, bytes([data[0] ^ 1]) + data[1:]
        rewrite(own, tensors)
        if cases.contents(own) == contents:
            break
        tensors = before
    layer, expert = int(name.split(".")[3]), int(name.split(".")[6])
    damage(path, contents.offset(contents.index(layer, expert)))
    said = refusal(CheckpointError, own)
    assert f"expert {expert} of layer {layer} is no longer what" in said
    assert "--force" in said
    assert prepare(own, force=True).written == RECORDS


@pytest.mark.parametrize("at", [9, 50, 104, PAGE + 3])
def test_a_damaged_head_is_written_anew_by_force_only(model, whole, want, at):
    damage(whole, at)
    said = refusal(CheckpointError, model, whole)
    assert str(whole) in said
    prepare(model, whole, force=True)
    assert whole.read_bytes() == want
