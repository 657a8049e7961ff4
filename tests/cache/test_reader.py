"""Reads end, well or badly; their slots are then the caller's."""

import threading

import numpy as np
import pytest

from hybrid.cache.reader import Reader
from hybrid.errors import CheckpointError, KernelError
from tests.cache.parts import PATIENCE, Source, content, record_of, slots


@pytest.fixture
def source():
    return Source(is_open=False)


@pytest.fixture
def own():
    return slots(6)


@pytest.fixture
def reader(source, own):
    reader = Reader(source, own, threads=2)
    yield reader
    source.gate.set()
    reader.close()


def finish(reader, reads):
    for read in reads:
        reader.wait([read])


def begun(source, count):
    for _ in range(count):
        assert source.begun.acquire(timeout=PATIENCE)


def test_records_arrive_in_their_slots(reader, source, own):
    assert not reader.busy
    assert reader.record_s == 0
    reads = [reader.order(1, expert, expert, ahead=False) for expert in range(5)]
    begun(source, 2)
    assert reader.busy
    assert not any(read.done for read in reads)
    source.gate.set()
    finish(reader, reads)
    for read in reads:
        assert read.error is None
        np.testing.assert_array_equal(content(own, read.slot), record_of(1, read.expert))
    assert not reader.busy
    assert (reader.reads, reader.nbytes) == (5, 5 * own.shape.nbytes)
    assert 0 < reader.busy_s <= reader.read_s
    assert reader.record_s == reader.busy_s / 5


def test_a_wait_tells_all_that_are_done(reader, source):
    source.gate.set()
    reads = [reader.order(1, expert, expert, ahead=False) for expert in range(3)]
    finish(reader, reads)
    assert reader.wait(reads) == reads


def test_only_what_has_not_begun_can_be_cancelled(reader, source, own):
    reads = [reader.order(1, expert, expert, ahead=True) for expert in range(3)]
    begun(source, 2)
    assert [reader.cancel(read) for read in reads] == [False, False, True]
    source.gate.set()
    reader.settle()
    assert not content(own, 2).any()
    assert sorted(source.asked) == [(1, 0), (1, 1)]
    assert not reader.busy


@pytest.mark.parametrize(
    "error", [CheckpointError("torn"), OSError(5, "I/O"), SystemExit(1), KeyboardInterrupt()]
)
def test_an_error_of_any_kind_is_the_reads_own(reader, source, own, error):
    source.errors[1] = error
    source.gate.set()
    reads = [reader.order(1, expert, expert, ahead=False) for expert in range(4)]
    finish(reader, reads)
    assert [read.error for read in reads] == [None, error, None, None]
    assert reader.reads == 3
    np.testing.assert_array_equal(content(own, 3), record_of(1, 3))


def test_closing_forgets_what_waits_and_finishes_what_runs(reader, source, own):
    reads = [reader.order(1, expert, expert, ahead=False) for expert in range(4)]
    begun(source, 2)
    threading.Timer(0.05, source.gate.set).start()
    reader.close()
    assert source.closed
    assert [read.error is None for read in reads] == [True, True, False, False]
    assert all(read.done for read in reads)
    with pytest.raises(KernelError, match="closed"):
        reader.order(1, 5, 5, ahead=False)


def test_a_step_in_another_thread_is_woken_when_the_reader_closes(reader, source):
    reads = [reader.order(1, expert, expert, ahead=False) for expert in range(3)]
    begun(source, 2)
    closer = threading.Thread(target=reader.close)
    closer.start()
    reader.wait(reads[2:])
    assert isinstance(reads[2].error, KernelError)
    source.gate.set()
    closer.join(PATIENCE)
    assert source.closed
