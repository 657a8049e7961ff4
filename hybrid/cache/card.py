"""Slots of experts on one accelerator: what computes from them, and the way in and out.

    experts   ── ids ── outputs of what lies in the slots ──>            one stream, in order
    stage 0   ── after the last that computes from slots ── copy ──>     a stream and pinned memory
    stage 1   ── after the last that computes from slots ── copy ──>     each, for other threads

A slot is overwritten only when a map names it no longer, so what computes from it was enqueued
before; the copy comes after that on the device, and the thread that computes waits for neither.
Records of RAM lie in pieces on NUMA nodes and, a hundred thousand pages of them, are not pinned
for the few that move: a core copies them into a stage first (10 GB/s or so).
"""

from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.accelerator.interface import Accelerator, Event, Stream
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.upload import Upload
from hybrid.cpu_experts.record import RecordShape
from hybrid.gpu_experts import GpuExperts

STAGES = 2  # records that cross the link, or are about to, at a time


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """A record's pinned memory and its way; one thread has it at a time."""

    memory: Tensor  # uint8 [record bytes]
    stream: Stream


class Card:
    """`count` slots. `outputs` and `settle` are for one thread, the rest for any."""

    def __init__(self, unit: Accelerator, shape: RecordShape, count: int, activation: str) -> None:
        self.unit, self.count = unit, count
        self.compute = unit.stream("experts")
        self._records = torch.zeros((count, shape.nbytes), dtype=torch.uint8, device=unit.device)
        self._experts = GpuExperts(shape, self._records, activation)
        self._ids = Upload(unit, self.compute)
        self._read: Event | None = None  # behind the last that computed from slots
        self._all = [
            _Stage(unit.pinned(shape.nbytes), unit.stream(f"stage {index}"))
            for index in range(STAGES)
        ]
        self._stages: SimpleQueue[_Stage] = SimpleQueue()  # those that nobody has
        for stage in self._all:
            self._stages.put(stage)

    def outputs(self, x: Tensor, slots: NDArray[np.int32], rows: Tensor) -> Event:
        """Enqueue expert(x) of all slots but -1; the event is behind it.

        x [tokens, hidden], slots [tokens, k], rows [tokens * k, hidden]; see GpuExperts.
        """
        (ids,) = self._ids.send(slots)
        self.compute.run(partial(self._experts.outputs, x, ids, rows))
        self._read = self.compute.record()
        return self._read

    def store(self, source: HostSlots, host_slot: int, slot: int) -> None:
        """Fill a slot from RAM; returns when the bytes are there."""
        stage = self._stages.get()
        try:
            source.copy_out(host_slot, stage.memory.numpy())
            if (read := self._read) is not None:
                stage.stream.after(read)
            self._copy(stage, self._records[slot], stage.memory)
        finally:
            self._stages.put(stage)

    def load(self, slot: int, target: HostSlots, host_slot: int) -> None:
        """Copy a slot to RAM; returns when the bytes are there."""
        stage = self._stages.get()
        try:
            self._copy(stage, stage.memory, self._records[slot])
            target.fill(host_slot, stage.memory.numpy())
        finally:
            self._stages.put(stage)

    def settle(self) -> None:
        """Give up what computes, and wait until nothing does. Stores and loads go on."""
        self.compute.settle()
        self._ids.settle()
        self._read = None

    def close(self) -> None:
        """End the streams. Any thread may."""
        self.compute.close()
        for stage in self._all:
            stage.stream.close()

    def _copy(self, stage: _Stage, target: Tensor, source: Tensor) -> None:
        try:
            stage.stream.copy(target, source)
            stage.stream.record().wait()
        except BaseException:
            stage.stream.settle()  # or the next who has the stage would hear of it
            raise
