"""Records from RAM to a device: as they lie where RAM is page-locked, else through pinned memory.

locked    slot of RAM ─────────────────── link ──> device      the host does nothing
else      slot of RAM ── copy ──> pinned ─ link ──> device      a core copies, 10 GB/s or so
"""

import torch
from torch import Tensor

from hybrid.accelerator.interface import Accelerator, Event, Stream
from hybrid.cache.host_slots import HostSlots

STAGES = 4  # pinned records: one is filled while others cross the link


class Lift:
    """One stream's way up; one thread sends."""

    def __init__(
        self, unit: Accelerator, source: HostSlots, stream: Stream, *, locked: bool
    ) -> None:
        self._source, self._stream = source, stream
        self._direct = locked
        count = 0 if self._direct else STAGES
        self._stages = [unit.pinned(source.shape.nbytes) for _ in range(count)]
        self._sent: list[Event | None] = [None] * count
        self._next = 0

    def send(self, host_slot: int, target: Tensor) -> None:
        """Enqueue the record's way to `target`, uint8 [nbytes] on the device.

        The slot of RAM may not change until an event behind that is done.
        """
        if self._direct:
            for at, piece in self._source.pieces(host_slot):
                self._stream.copy(target[at : at + len(piece)], torch.from_numpy(piece))
            return
        at, self._next = self._next, (self._next + 1) % len(self._stages)
        if (sent := self._sent[at]) is not None:
            sent.wait()
        self._source.copy_out(host_slot, self._stages[at].numpy())
        self._stream.copy(target, self._stages[at])
        self._sent[at] = self._stream.record()

    def settle(self) -> None:
        """Nothing is under way any more."""
        self._sent = [None] * len(self._sent)
