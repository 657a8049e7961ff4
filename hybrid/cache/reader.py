"""Reads of records on a few threads of their own: ordered early, awaited last.

The thread that runs the model takes a slot, orders a read and later asks which have ended. Threads
only move bytes; a slot belongs to its read until that has ended.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from hybrid.cache.host_slots import HostSlots
from hybrid.cache.source import RecordSource
from hybrid.cache.workers import Task, Workers

THREADS = 8  # a fast drive needs two records at once, a slow or distant one more


@dataclass(slots=True, eq=False)
class Read:
    """One record on its way into one slot."""

    layer: int
    expert: int
    slot: int
    ahead: bool  # ordered because it was predicted, not because it is needed
    task: Task

    @property
    def done(self) -> bool:
        """Whether the slot is the caller's again, filled or not."""
        return self.task.ended

    @property
    def error(self) -> BaseException | None:
        """Why the slot is not filled, once done."""
        return self.task.error


class Reader:
    """Threads that read from one source into the slots of one arena."""

    def __init__(self, source: RecordSource, slots: HostSlots, threads: int = THREADS) -> None:
        self._source, self._slots = source, slots
        self.kind = source.kind
        self._workers = Workers(threads, "records")
        self._lock = threading.Lock()  # of the threads, for what follows
        self._running = 0
        self._since = 0.0
        self.reads = 0
        self.nbytes = 0
        self.busy_s = 0.0  # during which at least one read ran
        self.read_s = 0.0  # summed over reads

    @property
    def record_s(self) -> float:
        """Seconds that a record takes at the rate so far; 0 before the first."""
        return self.busy_s / self.reads if self.reads else 0.0

    @property
    def busy(self) -> bool:
        """Whether a read runs or waits for its turn."""
        return self._workers.busy

    def order(self, layer: int, expert: int, slot: int, *, ahead: bool) -> Read:
        """Begin a read as soon as a thread is free."""
        task = Task(partial(self._run, layer, expert, slot))
        return Read(layer, expert, slot, ahead, self._workers.submit(task))

    def cancel(self, read: Read) -> bool:
        """Whether the read will not happen: it had not begun."""
        return read.task.cancel()

    def wait(self, reads: Collection[Read]) -> list[Read]:
        """Sleep until one of the reads is done; all that are."""
        self._workers.wait([read.task for read in reads])
        return [read for read in reads if read.done]

    def settle(self) -> None:
        """Forget what waits and finish what runs: no slot is written to any more."""
        self._workers.settle()

    def close(self) -> None:
        """The same, for ever; and close the source."""
        self._workers.close()
        self._source.close()

    def _run(self, layer: int, expert: int, slot: int) -> None:
        self._enter()
        began, nbytes = perf_counter(), 0
        try:
            nbytes = self._slots.pull(self._source, layer, expert, slot)
        finally:
            self._leave(nbytes, perf_counter() - began)

    def _enter(self) -> None:
        with self._lock:
            if not self._running:
                self._since = perf_counter()
            self._running += 1

    def _leave(self, nbytes: int, seconds: float) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                self.busy_s += perf_counter() - self._since
            self.reads += nbytes > 0
            self.nbytes += nbytes
            self.read_s += seconds
