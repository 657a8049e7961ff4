"""Arrays of a step on their way to an accelerator: packed, in one copy, from pinned memory.

    host arrays ── packed ──> pinned ── stream.copy ──> device ── views ──> tensors

Both memories are had once and grow. Pinned memory is written again only when the copy from it has
ended: by then it has, in a decode, for the answer to it has been waited for. On the device the
stream keeps the order: who reads the tensors does so on the same stream, or before it goes on.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.accelerator.interface import Accelerator, Event, Stream

Words = NDArray[np.int32] | NDArray[np.float32]
_TYPES = {np.dtype(np.int32): torch.int32, np.dtype(np.float32): torch.float32}


class Upload:
    """One way to the device, for one thread."""

    def __init__(self, unit: Accelerator, stream: Stream) -> None:
        self._unit, self._stream = unit, stream
        self._pinned = unit.pinned(0)
        self._there = torch.empty(0, dtype=torch.uint8, device=unit.device)
        self._sent: Event | None = None

    def send(self, *arrays: Words) -> list[Tensor]:
        """Copies of int32 and float32 arrays on the device, until the next call."""
        if self._sent is not None:
            self._sent.wait()
        nbytes = sum(array.nbytes for array in arrays)
        if len(self._pinned) < nbytes:
            self._pinned = self._unit.pinned(nbytes)
            self._there = torch.empty(nbytes, dtype=torch.uint8, device=self._unit.device)
        memory, at, tensors = self._pinned.numpy(), 0, []
        for array in arrays:
            end = at + array.nbytes
            np.copyto(memory[at:end].view(array.dtype).reshape(array.shape), array)
            tensors.append(self._there[at:end].view(_TYPES[array.dtype]).view(array.shape))
            at = end
        self._stream.copy(self._there[:nbytes], self._pinned[:nbytes])
        self._sent = self._stream.record()
        return tensors

    def settle(self) -> None:
        """Nothing is under way any more."""
        self._sent = None
