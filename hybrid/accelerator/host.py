"""An accelerator made of threads: its memory is RAM, its link as slow as one asks.

Each stream is a thread, so that overlap, order and errors are real on a machine without a GPU.

    caller    put(item) ─> queue ─> thread: work, copies, moments in order
    settle    epoch + 1: the thread passes over whatever was enqueued before

The caller may be interrupted by Ctrl-C anywhere, so it shares with the threads only compiled queues
and plain values that one side writes; there is no lock that it could leave locked.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.accelerator.interface import Event
from hybrid.errors import ConfigError, KernelError

CLOSED = "this model was closed while it ran; load it again"
GIVEN_UP = "this work was given up before it began"
FORKED = "this process was forked after the model was loaded; load it here"


class Link:
    """One way between host and device that all copies share: one after the other."""

    def __init__(self, gb_s: float | None) -> None:
        """`gb_s` None: copies take what they take."""
        self._gb_s = gb_s
        self._turn = threading.Lock()  # only the streams' threads take it: no Ctrl-C while held
        self._free_at = 0.0

    def carry(self, nbytes: int, urgent: bool) -> None:
        """Sleep for as long as the bytes take, after those that were sent before.

        An urgent transfer does not wait for others; they take so much longer.
        """
        if self._gb_s is None:
            return
        takes = nbytes / (self._gb_s * 1e9)
        with self._turn:
            now = time.perf_counter()
            begins = max(now, self._free_at)
            self._free_at = begins + takes
        time.sleep((now if urgent else begins) + takes - now)


class HostEvent:
    """See Event."""

    __slots__ = ("_callbacks", "_process", "done", "error")

    def __init__(self) -> None:
        self.done = False
        self.error: BaseException | None = None  # once done: why it went wrong
        self._callbacks: list[Callable[[], None]] = []
        self._process = os.getpid()

    def wait(self) -> None:
        """See Event."""
        if not self.done:
            if self._process != os.getpid():
                raise KernelError(FORKED)
            bell: SimpleQueue[None] = SimpleQueue()
            self.then(lambda: bell.put(None))
            while not self.done:
                bell.get()
        if self.error is not None:
            raise self.error

    def then(self, callback: Callable[[], None]) -> None:
        """See Event."""
        self._callbacks.append(callback)
        if self.done:
            self._tell()

    def end(self, error: BaseException | None) -> None:
        """It is done, or never will be."""
        self.error = error
        self.done = True
        self._tell()

    def _tell(self) -> None:
        """Each callback is had once: whoever takes it out of the list runs it."""
        with suppress(IndexError):
            while True:
                self._callbacks.pop(0)()


@dataclass(slots=True)
class _Item:
    epoch: int
    work: Callable[[], None] | None  # None: only a moment
    event: HostEvent | None


@dataclass(slots=True)
class _Shared:
    """What a stream and its thread know of each other."""

    orders: "SimpleQueue[_Item | None]"  # None: leave
    epoch: int = 0  # only the stream writes it
    closed: bool = False  # and this
    gone: bool = False  # the thread has left; only it writes this


class HostStream:
    """A thread that does one thing after the other."""

    def __init__(self, name: str, urgent: bool, link: Link) -> None:
        self._urgent, self._link = urgent, link
        self._shared = _Shared(SimpleQueue())
        self._process = os.getpid()
        self._thread = threading.Thread(target=_live, args=(self._shared,), name=name, daemon=True)
        self._thread.start()
        weakref.finalize(self, self._shared.orders.put, None)

    def run(self, work: Callable[[], None]) -> None:
        """See Stream."""
        self._put(work, None)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """See Stream."""
        self._put(partial(_copy, target, source, self._link, self._urgent), None)

    def record(self) -> HostEvent:
        """See Stream."""
        event = HostEvent()
        self._put(None, event)
        return event

    def after(self, event: Event) -> None:
        """See Stream."""
        self._put(event.wait, None)

    def settle(self) -> None:
        """See Stream."""
        if not self._shared.closed:
            self._shared.epoch += 1
            with suppress(KernelError):  # closed meanwhile: then nothing runs either
                self.record().wait()

    def close(self) -> None:
        """See Stream."""
        self._shared.closed = True
        if self._process != os.getpid():
            return
        self._shared.epoch += 1
        self._shared.orders.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _put(self, work: Callable[[], None] | None, event: HostEvent | None) -> None:
        if self._process != os.getpid():  # threads do not survive a fork
            raise KernelError(FORKED)
        if self._shared.closed:
            raise KernelError(CLOSED)
        self._shared.orders.put(_Item(self._shared.epoch, work, event))
        if self._shared.gone:  # meanwhile, by another thread
            _refuse(self._shared)


def _copy(target: Tensor, source: Tensor, link: Link, urgent: bool) -> None:
    link.carry(source.numel() * source.element_size(), urgent)
    target.copy_(source)


def _live(shared: _Shared) -> None:
    """A stream's thread. It does not know the stream: what is forgotten without `close` ends."""
    torch.set_num_threads(1)  # or libraries below take all cores here, and sum in another order
    error: BaseException | None = None
    failed = -1  # the epoch in which that was
    while (item := shared.orders.get()) is not None:
        if item.epoch != shared.epoch:
            outcome: BaseException | None = KernelError(CLOSED if shared.closed else GIVEN_UP)
        else:
            if failed != item.epoch:
                error = None
            if error is None and item.work is not None:
                error, failed = _attempt(item.work), item.epoch
            outcome = error
        if item.event is not None:
            item.event.end(outcome)
        del item, outcome  # they may hold on to much
    shared.gone = True
    _refuse(shared)


def _attempt(work: Callable[[], None]) -> BaseException | None:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it
        return error
    return None


def _refuse(shared: _Shared) -> None:
    """End what came after the thread had left."""
    with suppress(Empty):
        while True:
            item = shared.orders.get_nowait()
            if item is not None and item.event is not None:
                item.event.end(KernelError(CLOSED))


class Immediate:
    """The caller's own thread as a stream: what it enqueues is done when the call returns."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def run(self, work: Callable[[], None]) -> None:
        """See Stream."""
        work()

    def copy(self, target: Tensor, source: Tensor) -> None:
        """See Stream."""
        target.copy_(source)

    def record(self) -> HostEvent:
        """See Stream."""
        event = HostEvent()
        event.end(None)
        return event

    def after(self, event: Event) -> None:
        """See Stream; here the caller waits, being the stream."""
        event.wait()

    def settle(self) -> None:
        """See Stream."""

    def close(self) -> None:
        """See Stream."""


class HostAccelerator:
    """See Accelerator."""

    def __init__(self, name: str = "host", link_gb_s: float | None = None) -> None:
        """`link_gb_s`: GB/s that all copies share, None: as fast as they go."""
        if link_gb_s is not None and not link_gb_s > 0:
            raise ConfigError(f"link_gb_s is {link_gb_s}; give a rate above 0, or None")
        self.name = name
        self.device = torch.device("cpu")
        self._link = Link(link_gb_s)
        self._streams: list[HostStream] = []
        self._current = Immediate(self._link)

    def stream(self, name: str, urgent: bool = False) -> HostStream:
        """See Accelerator."""
        made = HostStream(f"{self.name} {name}", urgent, self._link)
        self._streams.append(made)
        return made

    def current(self) -> Immediate:
        """See Accelerator."""
        return self._current

    def pinned(self, nbytes: int) -> Tensor:
        """See Accelerator; here all memory is alike."""
        return torch.empty(nbytes, dtype=torch.uint8)

    def lock(self, memory: NDArray[np.uint8]) -> bool:
        """See Accelerator; here all memory is alike."""
        return True

    def close(self) -> None:
        """See Accelerator."""
        for stream in self._streams:
            stream.close()
