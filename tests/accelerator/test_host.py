"""Streams of threads: order, overlap, errors, interrupts, and a link that takes its time."""

import gc
import random
import threading
import time
from pathlib import Path

import pytest
import torch

from hybrid.accelerator import host
from hybrid.accelerator.host import HostAccelerator, Link
from hybrid.errors import ConfigError, KernelError
from tests import interrupting

PATIENCE = 30


@pytest.fixture
def unit():
    unit = HostAccelerator("tested")
    yield unit
    unit.close()


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


def held(stream, gate):
    """Work that lasts until the gate opens, once it has begun."""
    begun = threading.Event()

    def hold():
        begun.set()
        assert gate.wait(PATIENCE)

    stream.run(hold)
    assert begun.wait(PATIENCE)


def fail():
    raise ZeroDivisionError("planted")


def threads():
    return [each for each in threading.enumerate() if each.name.startswith("tested")]


def test_a_stream_does_one_thing_after_the_other_beside_the_caller(unit, gate):
    stream, done = unit.stream("a"), []
    held(stream, gate)
    for number in range(50):
        stream.run(lambda number=number: done.append(number))
    event = stream.record()
    assert not event.done
    assert not done
    gate.set()
    event.wait()
    assert event.done
    assert done == list(range(50))


def test_a_copy_is_done_when_its_turn_comes(unit, gate):
    stream = unit.stream("a")
    source, target = torch.arange(8.0), torch.zeros(8)
    held(stream, gate)
    stream.copy(target, source)
    assert not target.any()
    gate.set()
    stream.record().wait()
    assert torch.equal(target, source)


def test_a_stream_waits_for_another_and_the_caller_does_not(unit, gate):
    a, b, done = unit.stream("a"), unit.stream("b"), []
    held(a, gate)
    a.run(lambda: done.append("a"))
    b.run(lambda: done.append("before"))
    b.after(a.record())
    b.run(lambda: done.append("b"))
    end = b.record()
    assert not end.done
    gate.set()
    end.wait()
    assert sorted(done[:2]) == ["a", "before"]
    assert done[2] == "b"


def test_without_waiting_the_order_would_be_another(unit, gate):
    """The planted fault: `after` is forgotten."""
    a, b, done = unit.stream("a"), unit.stream("b"), []
    held(a, gate)
    a.run(lambda: done.append("a"))
    b.run(lambda: done.append("b"))
    b.record().wait()
    assert done == ["b"]


def test_the_callers_own_stream_waits_itself(unit, gate):
    a, done = unit.stream("a"), []
    held(a, gate)
    a.run(lambda: done.append("a"))
    threading.Timer(0.02, gate.set).start()
    unit.current().after(a.record())
    assert done == ["a"]
    unit.current().run(lambda: done.append("own"))
    assert unit.current().record().done
    assert done == ["a", "own"]


def test_after_an_error_nothing_is_computed_on_what_is_not_there(unit):
    a, b, done = unit.stream("a"), unit.stream("b"), []
    before = a.record()
    a.run(fail)
    a.run(lambda: done.append("a"))
    b.after(a.record())
    b.run(lambda: done.append("b"))
    before.wait()
    for stream in (a, b):
        event = stream.record()
        with pytest.raises(ZeroDivisionError, match="planted"):
            event.wait()
        assert event.done
    assert not done


def test_settled_it_is_as_new(unit, gate):
    a, done = unit.stream("a"), []
    a.run(fail)
    a.settle()
    a.run(lambda: done.append("a"))
    a.record().wait()
    held(a, gate)
    a.run(lambda: done.append("given up"))
    given_up = a.record()
    threading.Timer(0.02, gate.set).start()
    a.settle()
    assert given_up.done
    with pytest.raises(KernelError, match="given up"):
        given_up.wait()
    assert done == ["a"]


def test_who_comes_after_what_was_given_up_is_told_so(unit, gate):
    a, b = unit.stream("a"), unit.stream("b")
    held(a, gate)
    b.after(a.record())
    threading.Timer(0.02, gate.set).start()
    a.settle()
    with pytest.raises(KernelError, match="given up"):
        b.record().wait()


def test_what_is_to_follow_is_called_once_whoever_is_first(unit, gate):
    stream, calls = unit.stream("a"), []
    held(stream, gate)
    event = stream.record()
    event.then(lambda: calls.append(1))
    assert not calls
    gate.set()
    event.wait()
    stream.record().wait()
    event.then(lambda: calls.append(2))
    assert calls == [1, 2]
    stream.run(fail)
    failed = stream.record()
    failed.then(lambda: calls.append(3))
    with pytest.raises(ZeroDivisionError):
        failed.wait()
    stream.settle()
    assert calls == [1, 2, 3]


def test_closed_it_refuses_and_nobody_waits_for_ever(unit, gate):
    a, b = unit.stream("a"), unit.stream("b")
    held(a, gate)
    waiting = a.record()
    b.after(waiting)
    last = b.record()
    threading.Timer(0.02, gate.set).start()
    unit.close()
    for event in (waiting, last):
        with pytest.raises(KernelError, match="closed"):
            event.wait()
    for call in (a.record, lambda: a.run(fail), lambda: a.after(waiting)):
        with pytest.raises(KernelError, match="closed"):
            call()
    a.settle()
    unit.close()
    assert not threads()


def test_what_is_enqueued_while_another_thread_closes_ends():
    """Whoever comes too late is refused or told; it never waits for ever."""
    for turn in range(30):
        unit = HostAccelerator("tested")
        stream, ended = unit.stream("a"), []

        def talk(stream=stream, ended=ended):
            try:
                while True:
                    stream.run(lambda: None)
                    stream.record().wait()
            except KernelError as error:
                ended.append(str(error))

        talker = threading.Thread(target=talk)
        talker.start()
        time.sleep(0.0002 * (turn % 7))
        unit.close()
        talker.join(PATIENCE)
        assert not talker.is_alive()
        assert "closed" in ended[0]


def test_a_stream_that_is_forgotten_leaves_no_thread():
    stream = HostAccelerator("tested").stream("a")
    stream.run(lambda: None)
    stream.record().wait()
    assert threads()
    del stream
    gc.collect()
    deadline = time.perf_counter() + PATIENCE
    while threads():
        assert time.perf_counter() < deadline
        time.sleep(0.005)


def test_the_link_carries_one_after_the_other_but_lets_the_urgent_pass(monkeypatch):
    """By a clock of the test's own."""
    slept, now = [], [10.0]
    monkeypatch.setattr(host.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(host.time, "sleep", slept.append)
    link = Link(2.0)
    link.carry(4_000_000_000, urgent=False)
    link.carry(2_000_000_000, urgent=False)
    link.carry(1_000_000_000, urgent=True)
    link.carry(2_000_000_000, urgent=False)
    now[0] = 100.0
    link.carry(2_000_000_000, urgent=False)
    assert slept == pytest.approx([2.0, 3.0, 0.5, 4.5, 1.0])
    Link(None).carry(1 << 40, urgent=False)
    assert len(slept) == 5


def test_copies_of_all_streams_share_the_link():
    """At least the time that the bytes take; an own link for each stream would take half."""
    unit = HostAccelerator("tested", link_gb_s=0.01)
    one, other = unit.stream("a"), unit.stream("b")
    source, targets = torch.ones(25_000), [torch.zeros(25_000) for _ in range(2)]
    began = time.perf_counter()
    for stream, target in zip((one, other), targets, strict=True):
        stream.copy(target, source)
    for stream in (one, other):
        stream.record().wait()
    assert time.perf_counter() - began >= 2 * 100_000 / 0.01e9
    assert all(torch.equal(target, source) for target in targets)
    unit.close()


@pytest.mark.parametrize("rate", [0, -1.0, float("nan")])
def test_a_link_needs_a_rate(rate):
    with pytest.raises(ConfigError, match="link_gb_s"):
        HostAccelerator("tested", link_gb_s=rate)


def test_pinned_memory_is_bytes_and_locks_are_granted(unit):
    memory = unit.pinned(64)
    assert memory.dtype == torch.uint8
    assert memory.shape == (64,)
    assert unit.lock(memory.numpy())


def interrupted(call, at):
    """Ctrl-C in host.py; whether it got there."""
    return interrupting.interrupted(call, at, lambda file: Path(file).name == "host.py")


def test_after_an_interrupt_anywhere_a_settled_stream_works(unit):
    a, b, dice = unit.stream("a"), unit.stream("b"), random.Random(1)
    total, broken = torch.zeros(1, dtype=torch.int64), 0

    def play():
        for stream, other in ((a, b), (b, a)):
            stream.after(other.record())
            stream.run(lambda: total.add_(1))
            stream.record().then(lambda: None)
        unit.current().after(b.record())
        a.settle()
        b.record().wait()

    for _ in range(200):
        broken += interrupted(play, dice.randrange(1, 700))
        for stream in (a, b):
            stream.settle()
        total.zero_()
        play()
        assert total.item() == 2
    assert broken > 50


def test_a_close_that_is_interrupted_can_be_repeated():
    for at in range(1, 60, 3):
        unit = HostAccelerator("tested")
        unit.stream("a").run(lambda: None)
        interrupted(unit.close, at)
        unit.close()
        assert not threads()
