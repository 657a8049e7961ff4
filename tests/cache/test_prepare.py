"""`prepare` writes the picture of record_file.py, whatever interrupts it, and nothing else."""

import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.cache import direct_io, part_file
from hybrid.cache import prepare as module
from hybrid.cache.ahead import ahead
from hybrid.cache.file_source import FileSource
from hybrid.cache.part_file import part_path
from hybrid.cache.prepare import prepare
from hybrid.cache.record_file import DEFAULT_NAME
from hybrid.errors import CheckpointError, ConfigError
from hybrid.tiny import TinyShape, write_tiny
from tests.cache import record_cases as cases
from tests.cache.prepare_cases import RECORDS, StoppedError, open_files, refusal, stop_after
from tests.cache.record_cases import PAGE

# A file that is written from the beginning.


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_file_is_the_picture(model, output, contents, want, threads, often):
    done = prepare(model, output, threads=threads)
    assert output.read_bytes() == want
    assert (done.path, done.contents, done.verified) == (output, contents, True)
    assert (done.written, done.mended) == (RECORDS, 0)
    assert 0 < done.write_seconds < done.seconds
    assert done.write_gb_s == pytest.approx(
        RECORDS * contents.shape.nbytes / done.write_seconds / 1e9
    )


@pytest.mark.parametrize("name", ["k2.5", "k2-thinking", "two-dense-two-shared"])
def test_every_form_of_checkpoint(checkpoint_dir, output, name):
    directory = checkpoint_dir(name)
    prepare(directory, output)
    assert output.read_bytes() == cases.true_file(
        cases.contents(directory), cases.true_records(directory)
    )


def test_a_file_system_without_direct_io(model, output, want, monkeypatch, often):
    for place in (direct_io, part_file, module):
        monkeypatch.setattr(place, "make_direct", lambda fd: False)
    prepare(model, output)
    assert output.read_bytes() == want


@pytest.mark.parametrize("part", [PAGE, PAGE + 512, 2 * PAGE])
def test_writes_that_end_early_go_on(model, output, want, monkeypatch, part):
    """The kernel may take any part of what it is given; direct writes go on at a page."""
    real = os.pwritev
    monkeypatch.setattr(
        direct_io.os, "pwritev", lambda fd, buffers, at: real(fd, [buffers[0][:part]], at)
    )
    monkeypatch.setattr(part_file, "make_direct", lambda fd: False)  # takes 512 bytes as well
    assert prepare(model, output, threads=1).mended == 0
    assert output.read_bytes() == want


def test_nothing_but_the_file_is_written(model, tmp_path):
    own = shutil.copytree(model, tmp_path / "own")
    before = {path: path.read_bytes() for path in own.iterdir()}
    done = prepare(own)
    assert done.path == own / DEFAULT_NAME
    assert {path: path.read_bytes() for path in own.iterdir() if path != done.path} == before
    assert list(tmp_path.iterdir()) == [own]
    FileSource(done.path, cases.contents(own)).close()  # a checkpoint with its file is as before


def test_progress_counts_bytes_of_records(model, output, contents):
    seen = []
    prepare(model, output, progress=seen.append)
    total = RECORDS * contents.shape.nbytes
    assert [p.phase for p in seen] == ["prepare"] * RECORDS + ["verify"] * RECORDS
    assert {(p.total, p.unit) for p in seen} == {(total, "bytes")}
    assert [p.done for p in seen][:RECORDS] == [
        (n + 1) * contents.shape.nbytes for n in range(RECORDS)
    ]
    seen.clear()
    assert not prepare(model, output, verify=False, progress=seen.append).verified
    assert seen == []


# Going on.


def test_an_interrupted_run_is_continued(model, output, want, writes, often):
    with pytest.raises(StoppedError):
        prepare(model, output, threads=3, progress=stop_after(7))
    assert not output.exists()
    assert part_path(output).stat().st_size == len(want)
    assert len(writes) == 7  # the readers that were ahead wrote nothing
    writes.clear()
    done = prepare(model, output, threads=3)
    assert (done.written, len(writes)) == (5, 5)
    assert output.read_bytes() == want
    assert not part_path(output).exists()


def test_kept_records_are_read_back_once(model, output, monkeypatch, often):
    """Before they are believed; the last check leaves them out."""
    with pytest.raises(StoppedError):
        prepare(model, output, progress=stop_after(7))
    phases = Counter()
    prepare(model, output, progress=lambda progress: phases.update([progress.phase]))
    assert phases == {"verify": 7 + 5, "prepare": 5}


def test_a_torn_record_is_written_again(model, output, contents, want, often):
    spoil_a_part(model, output, contents)
    done = prepare(model, output)
    assert done.written == 5 + 1
    assert output.read_bytes() == want


def test_believing_the_journal_would_be_wrong(model, output, contents, want, monkeypatch, often):
    """The check above can fail."""
    spoil_a_part(model, output, contents)
    monkeypatch.setattr(module, "_damaged", lambda *_: [])
    assert prepare(model, output).written == 5
    assert output.read_bytes() != want


def spoil_a_part(model, output, contents):
    with pytest.raises(StoppedError):
        prepare(model, output, progress=stop_after(7))
    with part_path(output).open("r+b") as file:
        file.seek(contents.offset(6) + PAGE)
        file.write(b"torn" * ((contents.stride - PAGE) // 4))  # padding and all


@pytest.mark.parametrize("length", [0, 100, PAGE, 3 * PAGE, 9 * PAGE, 100 * PAGE])
def test_a_part_of_another_length_is_continued(model, output, want, length, often):
    with pytest.raises(StoppedError):
        prepare(model, output, progress=stop_after(7))
    os.truncate(part_path(output), length)
    if length in (100,):  # half a head is no head
        assert "is not a record file" in refusal(CheckpointError, model, output)
        part_path(output).unlink()
    prepare(model, output)
    assert output.read_bytes() == want


def test_a_journal_of_noise_costs_work_and_nothing_else(model, output, want, often):
    with pytest.raises(StoppedError):
        prepare(model, output, progress=stop_after(7))
    with part_path(output).open("r+b") as file:
        file.seek(PAGE)
        file.write(os.urandom(8 * RECORDS))
    assert prepare(model, output).written == RECORDS
    assert output.read_bytes() == want


@given(
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=PAGE)), max_size=4),
    st.none() | st.floats(0, 2),
)
@settings(max_examples=60, deadline=None)
def test_a_part_of_any_bytes_becomes_right(model, contents, want, tmp_path_factory, spots, length):
    """Spoiled anywhere, head and journal too, and cut or grown: the records are right in the end.

    Bytes between a record and the next page belong to no record, and no checksum covers them.
    """
    output = tmp_path_factory.getbasetemp() / "spoiled.records"
    part = bytearray(want)
    part[:8] = part_file.MAGIC_PART
    for where, noise in spots:
        at = int(where * (len(want) - 1))
        part[at : at + len(noise)] = noise[: len(part) - at]
    part_path(output).write_bytes(part)
    if length is not None:
        os.truncate(part_path(output), int(length * len(want)))
    try:
        prepare(model, output)
    except CheckpointError:  # the head is no longer ours
        part_path(output).unlink()
        prepare(model, output)
    with closing(FileSource(output, contents)) as source:
        memory = cases.slot(contents)
        for index in range(RECORDS):
            source.read(*contents.place(index), memory)
            start, size = contents.offset(index), contents.shape.nbytes
            assert memory[:size].tobytes() == want[start : start + size]
    output.unlink()


def crashes(model, output, *options):
    """Lines of crashing_prepare.py, taken apart."""
    program = [sys.executable, "-m", "tests.cache.crashing_prepare", str(model), str(output)]
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [*program, *options], capture_output=True, text=True, cwd=root, timeout=300, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    *lines, last = ran.stdout.splitlines()
    assert last == "lived"
    return [line.split() for line in lines]


@pytest.mark.parametrize("options", [(), ("--lose",)], ids=["killed", "and the disk forgets"])
def test_killed_at_every_point_it_is_continued(model, output, options):
    """SIGKILL before and after each call that changes the output, at all of them."""
    lines = crashes(model, output, *options)
    died_at = Counter(line[1] for line in lines)
    assert died_at["pwritev"] == 2 * RECORDS
    assert died_at["fdatasync"] == 2 * RECORDS / 3
    assert died_at["replace"] == 2
    assert died_at["fsync"] == 2 * 5  # part, directory; data, head, directory
    assert all(line[-1] == "True" for line in lines), lines
    written = [int(line[3]) for line in lines]
    assert {0, 3, 6, 9, RECORDS} <= set(written)  # what was committed is kept
    assert all(int(line[4]) == 0 for line in lines)  # and nothing had to be mended afterwards


# What a run is asked to do.


@pytest.mark.parametrize("threads", [0, -1, 65])
def test_threads_out_of_range(model, output, threads):
    assert f"threads is {threads}; it must be 1 ... 64" in refusal(
        ConfigError, model, output, threads=threads
    )
    assert not output.exists()


def test_a_model_without_experts(tmp_path, output):
    dense = write_tiny(tmp_path / "dense", TinyShape(num_hidden_layers=1), vision=False, seed=0)
    assert "no routed experts" in refusal(ConfigError, dense, output)


def test_a_model_that_is_not_there(tmp_path, output):
    refusal((CheckpointError, ConfigError), tmp_path / "absent", output)


@pytest.mark.parametrize("phase", ["prepare", "verify"])
def test_an_interrupt_leaves_no_thread_and_no_file_open(model, output, phase):
    threads, files = threading.active_count(), open_files()
    with pytest.raises(KeyboardInterrupt):
        prepare(model, output, threads=4, progress=stop_after(3, phase, KeyboardInterrupt))
    assert threading.active_count() == threads
    assert open_files() == files


# Working ahead.


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_work_ahead_is_in_order_and_within_its_slots(slots):
    memory = [np.zeros(1, np.uint8) for _ in range(slots)]
    inside, most, lock = set(), [], threading.Lock()

    def work(item, slot):
        with lock:
            assert id(slot) not in inside
            inside.add(id(slot))
            most.append(len(inside))
        slot[0] = item
        return item * item

    got = []
    for item, slot, square in ahead(iter(range(50)), work, memory):
        assert (slot[0], square) == (item, item * item)  # nobody has taken the slot meanwhile
        got.append(item)
        with lock:
            inside.discard(id(slot))
    assert got == list(range(50))
    assert max(most) <= slots


def test_what_is_broken_off_has_ended_when_it_returns():
    """Work that is running is waited for, because it writes to slots; what is queued never runs."""
    begun, ended, go_on = [], [], threading.Event()

    def work(item, slot):
        begun.append(item)
        if item:
            go_on.wait()
        ended.append(item)

    results = ahead(range(100), work, [np.zeros(1, np.uint8)] * 4)
    next(results)
    threading.Timer(0.05, go_on.set).start()
    results.close()
    assert go_on.is_set()
    assert sorted(begun) == sorted(ended)
    assert len(begun) <= 4


def test_an_error_in_a_thread_reaches_the_caller():
    def work(item, slot):
        if item == 3:
            raise CheckpointError("no")
        return item

    results = ahead(range(9), work, [np.zeros(1, np.uint8)] * 3)
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(CheckpointError, match="no"):
        next(results)


def test_memory_is_bounded_by_threads_not_by_the_model(model, output, contents, monkeypatch):
    taken = []
    real = direct_io.pages

    def pages(nbytes, purpose):
        taken.append(nbytes)
        return real(nbytes, purpose)

    monkeypatch.setattr(module, "pages", pages)
    monkeypatch.setattr("hybrid.cache.shard_source.pages", pages)
    prepare(model, output, threads=2)
    slots = [n for n in taken if n == contents.stride]
    assert len(slots) == 3
    assert len(taken) - len(slots) <= 2  # staging, one a thread
