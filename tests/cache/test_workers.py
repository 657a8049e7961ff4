"""Work is done once, in order, or not at all; nobody waits for ever."""

import gc
import os
import threading
import time

import pytest

from hybrid.cache import workers as workers_module
from hybrid.cache.workers import Task, Workers
from hybrid.errors import KernelError
from tests.cache.parts import PATIENCE


@pytest.fixture
def workers():
    workers = Workers(2, "tested")
    yield workers
    workers.close()


def threads():
    return [each for each in threading.enumerate() if each.name.startswith("tested")]


def occupied(workers, count=2):
    """Tasks that run until the gate opens."""
    gate, begun = threading.Event(), threading.Semaphore(0)

    def hold():
        begun.release()
        assert gate.wait(PATIENCE)

    tasks = [workers.submit(Task(hold)) for _ in range(count)]
    for _ in tasks:
        assert begun.acquire(timeout=PATIENCE)
    return tasks, gate


def finish(workers, tasks):
    for task in tasks:
        workers.wait([task])


def test_everything_is_done_once_and_in_order():
    one = Workers(1, "tested")
    done = []
    tasks = [one.submit(Task(lambda number=number: done.append(number))) for number in range(200)]
    finish(one, tasks)
    assert done == list(range(200))
    assert not one.busy
    one.close()


def test_a_task_waits_for_a_thread_and_may_be_cancelled_until_then(workers):
    running, gate = occupied(workers)
    done = []
    waiting = workers.submit(Task(lambda: done.append(1)))
    assert workers.busy
    assert not waiting.ended
    assert waiting.cancel()
    assert waiting.cancel()
    assert waiting.ended
    assert isinstance(waiting.error, KernelError)
    assert not running[0].cancel()
    gate.set()
    finish(workers, running)
    workers.settle()
    assert not done
    assert not running[0].cancel()
    assert running[0].error is None


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, MemoryError])
def test_what_is_raised_is_the_tasks_and_the_thread_goes_on(workers, error):
    def fail():
        raise error("seen")

    tasks = [workers.submit(Task(fail)) for _ in range(10)]
    finish(workers, tasks)
    assert all(isinstance(task.error, error) for task in tasks)
    assert len(threads()) == 2


def test_to_wait_is_to_wait_for_the_first_of_them(workers):
    (held,), gate = occupied(workers, 1)
    quick = workers.submit(Task(lambda: None))
    workers.wait([held, quick])
    assert quick.ended
    assert not held.ended
    gate.set()
    workers.wait([held])
    assert held.ended


def test_after_settling_nothing_runs(workers):
    """Cancelled or finished; also a task of which no thread ever heard, as after an interrupt."""
    running, gate = occupied(workers)
    waiting = workers.submit(Task(lambda: None))
    lost = Task(lambda: None)
    workers._open.append(lost)
    threading.Timer(0.05, gate.set).start()
    workers.settle()
    assert all(task.ended for task in (*running, waiting, lost))
    assert waiting.error is not None
    assert not workers.busy


def test_closing_cancels_what_waits_and_ends_the_threads(workers):
    running, gate = occupied(workers)
    waiting = [workers.submit(Task(lambda: None)) for _ in range(3)]
    threading.Timer(0.05, gate.set).start()
    workers.close()
    workers.close()
    assert all(task.error is None for task in running)
    assert all(task.error is not None for task in waiting)
    assert not threads()
    with pytest.raises(KernelError, match="closed while it ran"):
        workers.submit(Task(lambda: None))


def test_who_waits_for_a_task_that_another_thread_cancels_is_woken(workers):
    running, gate = occupied(workers)
    waiting = workers.submit(Task(lambda: None))
    closer = threading.Timer(0.05, workers.close)
    closer.start()
    workers.wait([waiting])
    assert waiting.error is not None
    gate.set()
    closer.join(PATIENCE)
    assert not threads()
    assert all(task.ended for task in running)


def test_a_task_that_comes_while_another_thread_closes_is_refused_or_done():
    """Never left in a queue that nobody reads."""
    for attempt in range(60):
        workers = Workers(1, "tested")
        closer = threading.Thread(target=lambda own=workers, s=attempt: (_spin(s), own.close()))
        closer.start()
        try:
            while True:
                workers.wait([workers.submit(Task(lambda: None))])
        except KernelError:
            pass
        closer.join(PATIENCE)
        assert not threads()


def _spin(turns):
    for _ in range(turns * 50):
        pass


def test_workers_that_are_forgotten_end():
    workers = Workers(3, "tested")
    workers.wait([workers.submit(Task(lambda: None))])
    del workers
    gc.collect()
    deadline = time.perf_counter() + PATIENCE
    while threads():
        assert time.perf_counter() < deadline
        time.sleep(0.01)


def test_a_forked_child_is_told(workers, monkeypatch):
    """Its threads do not exist: to wait for them would be for ever."""
    task, pid = Task(lambda: None), os.getpid()
    monkeypatch.setattr(workers_module.os, "getpid", lambda: pid + 1)
    with pytest.raises(KernelError, match="forked"):
        workers.submit(task)
    with pytest.raises(KernelError, match="forked"):
        workers.wait([task])
    workers.close()  # does not wait either
    monkeypatch.undo()
