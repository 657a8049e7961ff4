"""What a compute unit beside the host must offer: queues of work, moments in them, pinned memory.

    stream   ── work ── copy ── work ── (event) ── work ──>      in order, beside the caller
    stream   ── copy ─────────── after(event) ──── work ──>      waits there; the caller does not

`current` is the caller's own queue on the device, that of whatever it computes there directly: what
another stream made becomes visible to it by `current().after(event)`.

When work fails, nothing later in that stream is done, since it would compute on what is not there.
Events behind it, also those of other streams that come after one of them, raise the same error
from `wait`. `settle` gives up what has not begun, forgets the error, and the stream is as new.

Memory. Whoever copies keeps both sides alive, and the source unchanged, until an event behind the
copy is done. Memory of the device comes from torch; `pinned` is the host's memory that the link
reads and writes without the host.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Event(Protocol):
    """A moment in a stream: all that was enqueued before it, and what that came after."""

    @property
    def done(self) -> bool:
        """Whether that has ended, well or not; never waits."""

    def wait(self) -> None:
        """Let the host sleep until it is done; raises what the work raised, or KernelError."""

    def then(self, callback: Callable[[], None]) -> None:
        """Run this on the host once it is done, well or not, on any thread; at once if it is.

        It must be short and must not raise; which it was, `wait` says without waiting.
        """


class Stream(Protocol):
    """A queue of work. Any thread may enqueue; only one should, as order matters."""

    def run(self, work: Callable[[], None]) -> None:
        """Enqueue operations on tensors of the device. It may raise at once, or at `wait`."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Enqueue a copy of equal shapes and types, over the link if one side is the host's."""

    def record(self) -> Event:
        """The moment after all that has been enqueued so far."""

    def after(self, event: Event) -> None:
        """What is enqueued from now on begins once that event is done. The caller does not wait."""

    def settle(self) -> None:
        """Give up what has not begun, wait for what has, forget errors. Nothing runs then."""

    def close(self) -> None:
        """Settle and end for good; more work is refused with a KernelError. Any thread may."""


class Accelerator(Protocol):
    """One compute unit."""

    name: str
    device: torch.device

    def stream(self, name: str, urgent: bool = False) -> Stream:
        """A new queue. What is urgent goes first where both could."""

    def current(self) -> Stream:
        """The queue of what the calling thread computes on the device itself."""

    def pinned(self, nbytes: int) -> Tensor:
        """Host memory, uint8 [nbytes], that copies run from and to without the host."""

    def lock(self, memory: NDArray[np.uint8]) -> bool:
        """Let copies run from and to memory that there is already, as if it were pinned.

        Until `close`, which must come before the memory goes. False: the system refuses, and the
        way is through `pinned`.
        """

    def close(self) -> None:
        """Close every stream and give up locks."""
