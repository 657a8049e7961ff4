"""A ring of records on one device: uploaded from RAM, computed, uploaded anew.

    uploads   [e0 e1 e2 e3][e4 e5 e6 e7][e8 ...     each into the next slot of the ring, once
                           |            |            nobody computes from that slot any more
    compute                [e0 ... e3]  [e4 ...      a turn: a few records in one launch

One thread enqueues all of it (streaming.py), so that the thread that runs the model computes its
share meanwhile and Python's time a record is hidden.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.accelerator.interface import Accelerator, Event
from hybrid.cache.card_room import RING
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.lift import Lift
from hybrid.errors import KernelError
from hybrid.gpu_experts import GpuExperts

TOGETHER = 4  # records a launch: hides what a launch costs, and delays the first by three uploads
GIVEN_UP = "this prompt was given up while its experts were on their way to the device"


@dataclass(frozen=True, slots=True, eq=False)
class Landed:
    """A record in the ring, or on its way into it."""

    expert: int
    slot: int
    there: Event


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """What a ring does for one layer of a prompt."""

    count: int  # experts of the layer
    ids: NDArray[np.int32]  # [tokens, k], -1: none
    hidden: Tensor  # float32 [tokens, hidden], wherever it is
    x: Tensor | None  # the same on the ring's device; None: it must be copied there
    landed: Sequence[Landed]  # uploaded early
    experts: Sequence[tuple[int, int]]  # (expert, its slot of RAM) in the order of upload
    rows: Tensor  # float32 [tokens * k, hidden] on the device: where outputs go
    ready: Sequence[Event]  # hidden and x are there, and nobody uses rows


class Ring:
    """Slots of one device that records pass through. One thread runs and fetches at a time."""

    def __init__(
        self,
        unit: Accelerator,
        source: HostSlots,
        activation: str,
        records: int = RING,
        together: int = TOGETHER,
        *,
        locked: bool = False,
    ) -> None:
        """`locked`: the memory of `source` is page-locked, so that the link may read it."""
        self.unit, self.records, self.hidden = unit, records, source.shape.hidden
        self._together = max(1, min(together, records))
        nbytes = source.shape.nbytes
        self._slots = torch.zeros((records, nbytes), dtype=torch.uint8, device=unit.device)
        self._experts = GpuExperts(source.shape, self._slots, activation)
        self._uploads, self._compute = unit.stream("uploads"), unit.stream("streamed experts")
        self._index = torch.empty(0, dtype=torch.int32, device=unit.device)
        self._x = torch.empty((0, self.hidden), device=unit.device)
        self._uploads.after(unit.current().record())  # who allocates memory may have used it before
        self._lift = Lift(unit, source, self._uploads, locked=locked)
        self._freed: list[Event | None] = [None] * records  # behind the last that computed from it
        self._next = 0
        self._epoch = 0  # of `settle`

    @property
    def epoch(self) -> int:
        """For `run` and `fetch`: what was begun in an earlier epoch ends at the next record."""
        return self._epoch

    def run(self, load: Load, epoch: int) -> Event:
        """Enqueue a layer; the event is behind its last output.

        Raises KernelError after `settle`, and whatever copies and launches raise.
        """
        early = len(load.landed)
        experts = [each.expert for each in load.landed] + [each for each, _ in load.experts]
        slots = [each.slot for each in load.landed] + [self._take() for _ in load.experts]
        turns = self._turns(early, len(experts))
        x = self._hidden(load)
        ids, tables = self._ids(load, [{experts[at]: slots[at] for at in turn} for turn in turns])
        for event in (*load.ready, *(landed.there for landed in load.landed)):
            self._compute.after(event)
        for turn, table in zip(turns, tables, strict=True):
            for at in turn:
                if at >= early:
                    self._fill(load.experts[at - early][1], slots[at], epoch)
            self._compute.after(self._uploads.record())
            self._compute.run(partial(self._outputs, load, x, ids, table))
            freed = self._compute.record()
            for at in turn:
                self._freed[slots[at]] = freed
        return self._compute.record()

    def fetch(self, expert: int, host_slot: int, epoch: int) -> Landed:
        """Upload a record for a layer to come and wait until it is there."""
        slot = self._take()
        self._fill(host_slot, slot, epoch)
        landed = Landed(expert, slot, self._uploads.record())
        landed.there.wait()
        return landed

    def stop(self) -> None:
        """Let what another thread enqueues end soon, with an error."""
        self._epoch += 1
        self._uploads.settle()
        self._compute.settle()

    def settle(self) -> None:
        """Give up all there is. Nothing may be enqueued meanwhile; then no memory is in use."""
        self.stop()
        self._freed = [None] * self.records
        self._lift.settle()

    def close(self) -> None:
        """End the streams."""
        self._epoch += 1
        self._uploads.close()
        self._compute.close()

    def _turns(self, early: int, count: int) -> list[range]:
        """What is launched together: what is there at once, then a few at a time."""
        starts = range(early, count, self._together)
        rest = [range(start, min(start + self._together, count)) for start in starts]
        return [range(early), *rest] if early else rest

    def _ids(self, load: Load, turns: Sequence[dict[int, int]]) -> tuple[Tensor, Sequence[Tensor]]:
        """Ids [tokens * k] and for each turn the slot of each expert [count + 1], on the device.

        An id of -1 becomes `count`, whose slot is -1.
        """
        ids = np.where(load.ids < 0, load.count, load.ids).astype(np.int32).reshape(-1)
        tables = np.full((len(turns), load.count + 1), -1, np.int32)
        for row, turn in zip(tables, turns, strict=True):
            row[list(turn)] = list(turn.values())
        packed = torch.from_numpy(np.concatenate([ids, tables.reshape(-1)]))
        if len(self._index) < len(packed):
            self._index = torch.empty_like(packed, device=self.unit.device)
            self._uploads.after(self.unit.current().record())
        there = self._index[: len(packed)]
        self._uploads.copy(there, packed)
        first, *rest = torch.split(there, [len(ids), *[load.count + 1] * len(turns)])
        return first, rest

    def _hidden(self, load: Load) -> Tensor:
        """x on the device, copied there if need be. float32 [tokens, hidden]"""
        if load.x is not None:
            return load.x
        if len(self._x) < len(load.hidden):
            self._x = torch.empty(load.hidden.shape, device=self.unit.device)
            self._uploads.after(self.unit.current().record())
        x = self._x[: len(load.hidden)]
        for event in load.ready:
            self._uploads.after(event)
        self._uploads.copy(x, load.hidden)
        return x

    def _outputs(self, load: Load, x: Tensor, ids: Tensor, table: Tensor) -> None:
        """Outputs of those whose experts the turn has."""
        slots = table.index_select(0, ids).view(load.ids.shape)  # [tokens, k]
        self._experts.outputs(x, slots, load.rows)

    def _take(self) -> int:
        slot, self._next = self._next, (self._next + 1) % self.records
        return slot

    def _fill(self, host_slot: int, slot: int, epoch: int) -> None:
        """Enqueue a record's way into a slot of the ring."""
        if epoch != self._epoch:
            raise KernelError(GIVEN_UP)
        if (freed := self._freed[slot]) is not None:
            self._uploads.after(freed)
        self._lift.send(host_slot, self._slots[slot])
