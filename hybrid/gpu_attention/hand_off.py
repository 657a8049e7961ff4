"""What crosses the link between host and device in a step: few copies, and one wait a layer.

    Mirror    the same named arrays twice, on the device and in pinned memory, one copy apart
    upload    host -> device, enqueued; nobody waits
    fetch     device -> host, enqueued; an event says when the host may read

Arrays of a mirror lie behind one another in one piece of memory, so that ids, weights and hidden
state of a layer are one copy and one event. The host may write into a mirror again once it has
waited for any event behind the last upload.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.accelerator.interface import Accelerator, Event, Stream

ALIGNMENT = 256  # bytes; what kernels load in one piece begins at a multiple

NUMPY_TYPES: dict[torch.dtype, type[np.generic]] = {
    torch.int32: np.int32,
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.bfloat16: np.uint16,  # its bits: numpy has no such type
}
Fields = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Mirror:
    """Arrays on the device and, of the same names, types and shapes, on the host."""

    device: dict[str, Tensor]
    host: dict[str, NDArray[Any]]  # views of pinned memory
    memory: tuple[Tensor, Tensor]  # uint8, of the device and pinned

    @classmethod
    def empty(cls, accelerator: Accelerator, fields: Fields) -> "Mirror":
        """Reserve both sides; what they hold is undefined."""
        places, end = {}, 0
        for name, (dtype, shape) in fields.items():
            nbytes = math.prod(shape) * dtype.itemsize
            places[name] = (end, nbytes)
            end += -(-nbytes // ALIGNMENT) * ALIGNMENT
        device = torch.empty(end, dtype=torch.uint8, device=accelerator.device)
        pinned = accelerator.pinned(end)
        raw = pinned.numpy()
        on_device, on_host = {}, {}
        for name, (dtype, shape) in fields.items():
            at, nbytes = places[name]
            on_device[name] = device.narrow(0, at, nbytes).view(dtype).view(shape)
            on_host[name] = raw[at : at + nbytes].view(NUMPY_TYPES[dtype]).reshape(shape)
        return cls(on_device, on_host, (device, pinned))

    def upload(self, stream: Stream) -> None:
        """Enqueue the copy of all arrays to the device."""
        device, pinned = self.memory
        stream.copy(device, pinned)

    def fetch(self, stream: Stream) -> Event:
        """Enqueue the copy of all arrays to the host; they are there when the event is done."""
        device, pinned = self.memory
        stream.copy(pinned, device)
        return stream.record()


class Waits:
    """Counts how often the host waited for the device; it does so nowhere else."""

    def __init__(self) -> None:
        self.count = 0

    def wait(self, event: Event) -> None:
        """Let the host sleep until the event; raises what went wrong before it."""
        self.count += 1
        event.wait()
