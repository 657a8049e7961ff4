"""The device tier: slots in memory beside a compute unit that works while the CPU does.

What a device must do is short: compute experts that lie in its slots, fill a slot, empty one. The
one here is the host itself with memory and threads of its own, which is what a machine without a
GPU has, and what every test of promotion and overlap runs on.
"""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hybrid.cache.host_slots import HostSlots
from hybrid.cache.workers import Task, Work, Workers
from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.cores import Share
from hybrid.cpu_experts.pool import Pool
from hybrid.cpu_experts.record import RecordShape

F32 = NDArray[np.float32]


class Device(Protocol):
    """Slots that another compute unit reads. Maps are the caller's: `where[layer]` [experts]."""

    count: int

    def launch(self, layer: int, x: F32, ids: NDArray[np.int32], outputs: F32) -> None:
        """Begin to write expert(x) of all ids but -1 to rows of `outputs` [tokens * k, hidden].

        One launch at a time: `collect` or `settle` comes before the next.
        """

    def collect(self) -> None:
        """Wait until what was launched is written; raises what prevented that."""

    def settle(self) -> None:
        """Wait until nothing is written any more, for whatever reason."""

    def store(self, source: HostSlots, host_slot: int, slot: int) -> None:
        """Fill a slot from RAM; any thread, returns when the bytes are there."""

    def load(self, slot: int, target: HostSlots, host_slot: int) -> None:
        """Copy a slot to RAM; any thread, returns when the bytes are there."""

    def close(self) -> None:
        """Finish what runs and free the slots."""


class HostDevice:
    """A device made of RAM and threads."""

    def __init__(
        self,
        shape: RecordShape,
        count: int,
        where: Sequence[NDArray[np.int32] | None],
        isa: str | None,
        activation: str,
        threads: int = 1,
    ) -> None:
        """`where`: by layer, which slot an expert has, -1 for none; None where a layer has none."""
        self.count = count
        self._slots = HostSlots(shape, count, (Share(None, (None,) * threads),))
        pool = Pool(threads)
        self._layers = [
            own is not None
            and ExpertLayer(
                len(own),
                shape.hidden,
                shape.intermediate,
                isa,
                threads,
                activation,
                shards=self._slots.shards,
                where=own,
                pool=pool,
            )
            for own in where
        ]
        self._pool = pool
        self._worker = Workers(1, "device")
        self._work: Work = lambda: None
        self._launched: Task | None = None  # and not collected

    def launch(self, layer: int, x: F32, ids: NDArray[np.int32], outputs: F32) -> None:
        """See Device."""
        experts = self._layers[layer]
        assert isinstance(experts, ExpertLayer)
        self._work = partial(experts.outputs, x, ids, outputs)
        self._launched = self._worker.submit(Task(self._work))

    def collect(self) -> None:
        """See Device."""
        task, self._launched = self._launched, None
        if task is None:
            return
        if task.cancel():  # the caller is here sooner than the thread would wake up
            self._work()
            return
        self._worker.wait([task])
        if task.error is not None:
            raise task.error

    def settle(self) -> None:
        """See Device."""
        self._worker.settle()

    def store(self, source: HostSlots, host_slot: int, slot: int) -> None:
        """See Device."""
        source.copy_out(host_slot, self._slots.shards[0].records[slot])

    def load(self, slot: int, target: HostSlots, host_slot: int) -> None:
        """See Device."""
        target.fill(host_slot, self._slots.shards[0].records[slot])

    def close(self) -> None:
        """See Device."""
        self._worker.close()
        self._pool.close()
