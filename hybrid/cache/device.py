"""The device tier: slots in memory beside a compute unit that works while the CPU does.

What a device must do is short: compute experts that lie in its slots, fill a slot, empty one. The
one here is the host itself with memory and threads of its own, which is what a machine without a
GPU has; torch_device.py is the one of accelerators.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hybrid.backbone import Routing
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.layer_map import Ids, LayerMap
from hybrid.cache.workers import Task, Work, Workers
from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.cores import Share
from hybrid.cpu_experts.pool import Pool
from hybrid.cpu_experts.record import RecordShape

F32 = NDArray[np.float32]
Sum = Any  # [tokens, hidden], an array of the host or a tensor of the device
NOBODY = np.empty(0, np.int32)


class Device(Protocol):
    """Slots that another compute unit reads. Maps are the caller's: `where[layer]` [experts]."""

    count: int
    streams: bool  # whether `take` may take any

    def room(self, rows: int) -> F32:
        """Memory [rows, hidden] for what the CPU computes; the same for every step."""

    def launch(self, layer: int, routing: Routing, ids: Ids, outputs: F32) -> None:
        """Begin to compute expert(x) of all ids [tokens, k] but -1, which all are in slots.

        `outputs` is [tokens * k, hidden] from `room`; a device of the host's writes its rows there.
        `join` or `settle` comes before the next step.
        """

    def take(self, own: LayerMap, routing: Routing, in_ram: Ids, after: LayerMap | None) -> Ids:
        """Begin to compute some of the experts `in_ram` too, and say which.

        They stay where they are until `collect` or `join`. `after`: the layer that comes next.
        """

    def join(self, routing: Routing, outputs: F32) -> Sum | None:
        """The sum of all rows, once the CPU's are in `outputs`; ends the step.

        None: all rows are there, and the sum is the host's to make. Raises what prevented that.
        """

    def collect(self) -> None:
        """Wait until what was begun is computed, without ending the step; raises what `join` would.

        Then nothing reads a slot or a record of RAM.
        """

    def settle(self) -> None:
        """Wait until nothing is written any more, for whatever reason."""

    def store(self, source: HostSlots, host_slot: int, slot: int) -> None:
        """Fill a slot from RAM; any thread, returns when the bytes are there."""

    def load(self, slot: int, target: HostSlots, host_slot: int) -> None:
        """Copy a slot to RAM; any thread, returns when the bytes are there."""

    def streamed(self) -> dict[str, int]:
        """Records that `take` brought over since loading, and what became of early ones."""

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
        self.streams = False
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
        self._rows = np.empty((0, shape.hidden), np.float32)

    def room(self, rows: int) -> F32:
        """See Device."""
        if len(self._rows) < rows:
            self._rows = np.empty((rows, self._rows.shape[1]), np.float32)
        return self._rows[:rows]

    def launch(self, layer: int, routing: Routing, ids: Ids, outputs: F32) -> None:
        """See Device."""
        experts = self._layers[layer]
        assert isinstance(experts, ExpertLayer)
        self._work = partial(experts.outputs, routing.hidden, ids, outputs)
        self._launched = self._worker.submit(Task(self._work))

    def take(self, own: LayerMap, routing: Routing, in_ram: Ids, after: LayerMap | None) -> Ids:
        """See Device: a record of RAM is as near to the CPU."""
        return NOBODY

    def join(self, routing: Routing, outputs: F32) -> None:
        """See Device."""
        self.collect()

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

    def streamed(self) -> dict[str, int]:
        """See Device."""
        return {}

    def close(self) -> None:
        """See Device."""
        self._worker.close()
        self._pool.close()
