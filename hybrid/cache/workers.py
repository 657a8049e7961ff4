"""Threads that do pieces of work for the one thread that runs the model.

That thread can be interrupted by Ctrl-C anywhere, also within `submit` or `wait`, and the next
request must then find everything usable. So it shares nothing with the workers but queues and lists
of compiled code, which an interrupt finds before or after a change, and a task is noted before it
is given away: `settle` then knows all that may still run. The locks of concurrent.futures are
Python code, and an interrupt between taking and using one leaves it locked for ever.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue

from hybrid.errors import KernelError

Work = Callable[[], object]
_CANCEL = object()
_CLOSED = "this model was closed while it ran; load it again"


class Task:
    """A piece of work. It ends when it was done, failed, or was cancelled before it began."""

    __slots__ = ("_claims", "_work", "ended", "error")

    def __init__(self, work: Work) -> None:
        self._work: Work | None = work
        self._claims: list[object] = []
        self.ended = False
        self.error: BaseException | None = None  # why the work is not done, once ended

    def cancel(self) -> bool:
        """Whether it has not begun and never will; who asks again gets the same answer."""
        if not self._claim(_CANCEL):
            return False
        self.error = KernelError(_CLOSED)
        self.ended = True
        return True

    def run(self) -> None:
        """Do the work, unless that was cancelled."""
        if not self._claim(object()):
            return
        try:
            assert self._work is not None
            self._work()
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it, and go on
            self.error = error
        finally:
            self._work = None  # it may hold on to much
            self.ended = True

    def _claim(self, who: object) -> bool:
        """Whose the task is: the first to append, which is one step whoever else does so."""
        self._claims.append(who)
        return self._claims[0] is who


class Workers:
    """A few threads and their queue. All methods but `close` are for one thread alone."""

    def __init__(self, threads: int, name: str) -> None:
        self._orders: SimpleQueue[Task | None] = SimpleQueue()  # None: leave
        self._bell: SimpleQueue[None] = SimpleQueue()  # something has ended
        self._open: list[Task] = []  # what may not have ended
        self._closed = False
        self._process = os.getpid()
        self._threads = [
            threading.Thread(
                target=_live,
                args=(self._orders, self._bell),
                name=f"{name}_{index}",
                daemon=True,
            )
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()
        weakref.finalize(self, self._orders.put, None)

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits for its turn."""
        return not all(task.ended for task in self._open)

    def submit(self, task: Task) -> Task:
        """Let a thread do it, after what was submitted before."""
        self._check()
        self._open = [each for each in self._open if not each.ended]
        self._open.append(task)
        self._orders.put(task)
        if self._closed and task.cancel():  # meanwhile, by another thread
            raise KernelError(_CLOSED)
        return task

    def wait(self, tasks: Iterable[Task]) -> None:
        """Sleep until one of the tasks has ended."""
        tasks = tuple(tasks)
        while not self._bell.empty():  # for what ended long ago
            self._bell.get()
        while not any(task.ended for task in tasks):
            self._check_process()
            self._bell.get()

    def settle(self) -> None:
        """Cancel what has not begun and wait for the rest: then nothing runs."""
        for task in [task for task in self._open if not task.cancel()]:
            self.wait([task])
        self._open = []

    def close(self) -> None:
        """Cancel what has not begun, finish the rest, and end the threads. Any thread may."""
        self._closed = True
        if self._process != os.getpid():
            return
        with suppress(Empty):
            while True:
                task = self._orders.get_nowait()
                if task is not None:
                    task.cancel()
        self._orders.put(None)
        self._bell.put(None)
        for thread in self._threads:
            thread.join()

    def _check(self) -> None:
        if self._closed:
            raise KernelError(_CLOSED)
        self._check_process()

    def _check_process(self) -> None:
        if self._process != os.getpid():  # threads do not survive a fork
            raise KernelError("this process was forked after the model was loaded; load it here")


def _live(orders: "SimpleQueue[Task | None]", bell: "SimpleQueue[None]") -> None:
    """A thread. It knows its queues alone, so that what is forgotten without `close` goes too."""
    while (task := orders.get()) is not None:
        task.run()
        del task
        bell.put(None)
    orders.put(None)  # to the next
