"""An accelerator that is a CUDA device: torch's streams, events and pinned memory, and no more.

Work is launched by the thread that enqueues it and runs on the device later. Copies from and to
pinned memory need no host; others are correct but make the caller wait.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.accelerator.interface import Event
from hybrid.errors import KernelError, PlacementError

CLOSED = "this model was closed while it ran; load it again"
PORTABLE = 1  # cudaHostRegister: for all devices
SUCCESS = 0


class CudaEvent:
    """See Event."""

    def __init__(self, event: torch.cuda.Event, watcher: "Watcher") -> None:
        self._event, self._watcher = event, watcher

    @property
    def done(self) -> bool:
        """See Event."""
        done: bool = self._event.query()  # type: ignore[no-untyped-call]
        return done

    def wait(self) -> None:
        """See Event; torch raises what went wrong on the device."""
        self._event.synchronize()

    def then(self, callback: Callable[[], None]) -> None:
        """See Event."""
        self._watcher.watch(self._event, callback)

    def hold(self, stream: torch.cuda.Stream) -> None:
        """Let a stream of the device wait."""
        stream.wait_event(self._event)


class Watcher:
    """A thread that waits for a stream's events, once anybody asks it to."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._orders: SimpleQueue[tuple[torch.cuda.Event, Callable[[], None]] | None] = (
            SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def watch(self, event: torch.cuda.Event, callback: Callable[[], None]) -> None:
        """Call back when the event is done. Events are expected in the stream's order."""
        self._orders.put((event, callback))
        if self._thread is None:
            self._thread = threading.Thread(
                target=_watch, args=(self._orders,), name=self._name, daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Call back for all that is noted, then leave."""
        self._orders.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


def _watch(orders: "SimpleQueue[tuple[torch.cuda.Event, Callable[[], None]] | None]") -> None:
    while (order := orders.get()) is not None:
        event, callback = order
        with suppress(RuntimeError):  # the device failed: `wait` says so, and whoever waits hears
            event.synchronize()
        callback()
        del order, event, callback


class CudaStream:
    """See Stream."""

    def __init__(self, stream: torch.cuda.Stream, watcher: Watcher, urgent: bool) -> None:
        """The host sleeps for an event of this stream; for an urgent one it spins."""
        self._stream, self._watcher, self._urgent = stream, watcher, urgent
        self._closed = False

    def run(self, work: Callable[[], None]) -> None:
        """See Stream; launched at once, so that errors of the launch are raised here."""
        self._check()
        with torch.cuda.stream(self._stream):
            work()

    def copy(self, target: Tensor, source: Tensor) -> None:
        """See Stream; torch's allocators keep both sides' memory until the copy has ended."""
        self._check()
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
        for side in (target, source):
            if side.is_cuda:
                side.record_stream(self._stream)

    def record(self) -> CudaEvent:
        """See Stream."""
        self._check()
        event = torch.cuda.Event(blocking=not self._urgent)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return CudaEvent(event, self._watcher)

    def after(self, event: Event) -> None:
        """See Stream."""
        self._check()
        assert isinstance(event, CudaEvent)
        event.hold(self._stream)

    def settle(self) -> None:
        """See Stream; what was launched cannot be taken back and is waited for."""
        if not self._closed:
            self._stream.synchronize()

    def close(self) -> None:
        """See Stream."""
        if not self._closed:
            self._closed = True
            self._stream.synchronize()

    def _check(self) -> None:
        if self._closed:
            raise KernelError(CLOSED)


class CudaAccelerator:
    """See Accelerator."""

    def __init__(self, index: int = 0) -> None:
        """`index` of the device as torch counts them; PlacementError if there is none."""
        if not 0 <= index < torch.cuda.device_count():
            raise PlacementError(
                f"CUDA device {index} was asked for but torch sees {torch.cuda.device_count()}; "
                "check nvidia-smi and CUDA_VISIBLE_DEVICES"
            )
        self.device = torch.device("cuda", index)
        self.name = torch.cuda.get_device_name(self.device)
        self._streams: list[CudaStream] = []
        self._watchers: list[Watcher] = []
        self._locked: list[NDArray[np.uint8]] = []
        self._others = self._watcher("current")

    def stream(self, name: str, urgent: bool = False) -> CudaStream:
        """See Accelerator."""
        priority = -1 if urgent else 0
        stream = torch.cuda.Stream(self.device, priority)  # type: ignore[no-untyped-call]
        made = CudaStream(stream, self._watcher(name), urgent)
        self._streams.append(made)
        return made

    def current(self) -> CudaStream:
        """See Accelerator."""
        stream = torch.cuda.current_stream(self.device)
        return CudaStream(stream, self._others, urgent=True)

    def pinned(self, nbytes: int) -> Tensor:
        """See Accelerator."""
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)

    def lock(self, memory: NDArray[np.uint8]) -> bool:
        """See Accelerator. It holds for all devices, so one of them is to ask."""
        cudart = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        address = memory.ctypes.data
        if cudart.cudaHostRegister(address, memory.nbytes, PORTABLE) == SUCCESS:
            self._locked.append(memory)
            return True
        with suppress(RuntimeError):  # CUDA tells of a refusal once more, at the next launch
            torch.zeros(1, device=self.device)
        return False

    def close(self) -> None:
        """See Accelerator."""
        for stream in self._streams:
            stream.close()
        while self._locked:
            cudart = torch.cuda.cudart()  # type: ignore[no-untyped-call]
            cudart.cudaHostUnregister(self._locked.pop().ctypes.data)
        for watcher in self._watchers:
            watcher.close()

    def _watcher(self, name: str) -> Watcher:
        made = Watcher(f"{self.device} {name}")
        self._watchers.append(made)
        return made
