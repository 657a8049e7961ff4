"""One device's part in a streamed prompt: its ring, the thread that enqueues, the way home.

A lane takes orders from the thread that runs the model and carries them out one after the other:
the records of a layer, then what the next layer may want.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter

import numpy as np

from hybrid.accelerator.interface import Accelerator, Event
from hybrid.cache.gather import Gather
from hybrid.cache.ring import Landed, Load, Ring
from hybrid.cache.workers import Task, Workers


@dataclass(slots=True, eq=False)
class Part:
    """A layer's records under way; the task ends when all is enqueued."""

    task: Task | None = None
    written: Event | None = None
    ended: float | None = None  # when all rows were written


@dataclass(slots=True, eq=False)
class Fetch:
    """Records under way for a layer to come."""

    task: Task | None = None
    landed: list[Landed] = field(default_factory=list)
    wanted: bool = True  # False: no more of them


class Lane:
    """A ring that works beside the caller. All methods but `close` are for one thread."""

    def __init__(self, ring: Ring, first: Accelerator) -> None:
        """`first`: the device that joins. If it is not the ring's own, rows are brought there."""
        self.ring = ring
        self._gather = None if ring.unit is first else Gather(ring.unit, first, ring.hidden)
        self._feeder = Workers(1, f"ring on {ring.unit.name}")

    def begin(self, load: Load) -> Part:
        """Compute some experts' rows; `load` as the first device sees it."""
        part = Part()
        part.task = self._feeder.submit(Task(partial(self._feed, load, self.ring.epoch, part)))
        return part

    def collect(self, part: Part) -> None:
        """Wait until all rows are written; raises what prevented that."""
        assert part.task is not None
        self._feeder.wait([part.task])
        if part.task.error is not None:
            raise part.task.error
        assert part.written is not None
        part.written.wait()

    def fetch(self, fetch: Fetch, order: Sequence[tuple[int, int]]) -> None:
        """Upload (expert, its slot of RAM) one at a time, behind what was ordered before."""
        work = partial(_fetch, self.ring, tuple(order), self.ring.epoch, fetch)
        fetch.task = self._feeder.submit(Task(work))

    def end(self, fetch: Fetch) -> None:
        """Upload no more of it; waits for the record under way."""
        fetch.wanted = False
        if fetch.task is not None and not fetch.task.cancel():
            self._feeder.wait([fetch.task])

    def settle(self) -> None:
        """Give up what is under way and wait until no memory is in use."""
        self.ring.stop()
        if self._gather is not None:
            self._gather.settle()
        self._feeder.settle()
        self.ring.settle()
        if self._gather is not None:
            self._gather.settle()

    def close(self) -> None:
        """The same, for ever. Any thread may."""
        self.ring.close()
        if self._gather is not None:
            self._gather.close()
        self._feeder.close()

    def _feed(self, load: Load, epoch: int, part: Part) -> None:
        """The lane's thread: enqueue everything."""
        if self._gather is None:
            written = self.ring.run(load, epoch)
        else:
            rows, free = self._gather.rows(len(load.rows))
            hidden = load.hidden if load.x is None else load.x
            ready = (*load.ready, free)
            there = replace(load, hidden=hidden, x=None, rows=rows, ready=ready)
            written = self.ring.run(there, epoch)
            wanted = [each.expert for each in load.landed] + [each for each, _ in load.experts]
            positions = np.flatnonzero(np.isin(load.ids, np.array(wanted, np.int32)))
            written = self._gather.bring(positions, written, load.rows, load.ready[0])
        part.written = written
        written.then(partial(_stamp, part))


def _stamp(part: Part) -> None:
    part.ended = perf_counter()


def _fetch(ring: Ring, order: Sequence[tuple[int, int]], epoch: int, fetch: Fetch) -> None:
    """The lane's thread: one record after the other, as long as somebody wants them."""
    for expert, host_slot in order:
        if not fetch.wanted:
            return
        fetch.landed.append(ring.fetch(expert, host_slot, epoch))
