"""The calls that are made to torch.cuda, in order, on a surface that only notes them.

No device is at hand; what runs on one is the same calls. What can be wrong here is their order, the
stream they are made on, and whose memory is kept until a copy has ended.
"""

import contextlib
import threading
import time

import numpy as np
import pytest
import torch

from hybrid.accelerator import cuda
from hybrid.accelerator.cuda import CudaAccelerator
from hybrid.errors import KernelError, PlacementError

PATIENCE = 30


class Surface:
    """What is used of torch.cuda."""

    def __init__(self):
        self.calls, self.on = [], "default"
        self.failing = self.register_fails = False
        surface = self

        class Stream:
            def __init__(self, device, priority, name=None):
                self.name = name or f"s{len([c for c in surface.calls if c[0] == 'stream'])}"
                if name is None:
                    surface.calls.append(("stream", self.name, priority))

            def wait_event(self, event):
                surface.calls.append(("wait_event", self.name, event.name))

            def synchronize(self):
                surface.calls.append(("synchronize", self.name))

        class Event:
            def __init__(self, blocking):
                self.name = f"e{len([c for c in surface.calls if c[0] == 'record'])}"
                self.blocking = blocking

            def record(self, stream):
                surface.calls.append(("record", stream.name, self.name, self.blocking))

            def query(self):
                return not surface.failing

            def synchronize(self):
                if surface.failing:
                    raise RuntimeError("device-side assert")
                surface.calls.append(("wait", self.name))

        self.Stream, self.Event = Stream, Event
        self.default = Stream(None, 0, "default")

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.on = self.on, stream.name
        yield
        self.on = before

    def current_stream(self, device):
        return self.default

    def device_count(self):
        return 1

    def get_device_name(self, device):
        return "a card"

    def cudart(self):
        return self

    def cudaHostRegister(self, address, nbytes, flags):  # noqa: N802
        self.calls.append(("register", nbytes, flags))
        return 1 if self.register_fails else 0

    def cudaHostUnregister(self, address):  # noqa: N802
        self.calls.append(("unregister",))


class Memory:
    """A tensor as far as copies look at it."""

    def __init__(self, surface, name, is_cuda):
        self.surface, self.name, self.is_cuda = surface, name, is_cuda

    def copy_(self, source, non_blocking):
        surface = self.surface
        surface.calls.append(("copy", surface.on, self.name, source.name, non_blocking))

    def record_stream(self, stream):
        self.surface.calls.append(("keep", self.name, stream.name))


@pytest.fixture
def surface(monkeypatch):
    surface = Surface()
    monkeypatch.setattr(torch, "cuda", surface)
    monkeypatch.setattr(cuda.torch, "cuda", surface)
    return surface


@pytest.fixture
def unit(surface):
    unit = CudaAccelerator(0)
    yield unit
    surface.failing = False
    unit.close()


def test_a_copy_is_enqueued_on_its_stream_and_the_event_after_it(unit, surface):
    stream = unit.stream("up")
    there, here = Memory(surface, "there", True), Memory(surface, "here", False)
    stream.copy(there, here)
    event = stream.record()
    assert surface.calls == [
        ("stream", "s0", 0),
        ("copy", "s0", "there", "here", True),
        ("keep", "there", "s0"),
        ("record", "s0", "e0", True),
    ]
    event.wait()
    assert surface.calls[-1] == ("wait", "e0")


def test_work_is_launched_on_its_stream_and_urgent_ones_come_first(unit, surface):
    stream, seen = unit.stream("now", urgent=True), []
    stream.run(lambda: seen.append(surface.on))
    assert seen == ["s0"]
    assert surface.on == "default"
    stream.record()
    assert surface.calls == [("stream", "s0", -1), ("record", "s0", "e0", False)]


def test_waiting_is_the_devices(unit, surface):
    a, b = unit.stream("a"), unit.stream("b")
    b.after(a.record())
    unit.current().after(b.record())
    assert surface.calls[2:] == [
        ("record", "s0", "e0", True),
        ("wait_event", "s1", "e0"),
        ("record", "s1", "e1", True),
        ("wait_event", "default", "e1"),
    ]


@pytest.mark.parametrize("failing", [False, True])
def test_what_is_to_follow_runs_on_a_thread_when_that_is_done(unit, surface, failing):
    surface.failing = failing
    called = threading.Event()
    unit.stream("a").record().then(called.set)
    assert called.wait(PATIENCE)
    assert (("wait", "e0") in surface.calls) is not failing


def test_an_error_of_the_device_is_raised_by_wait(unit, surface):
    event = unit.stream("a").record()
    surface.failing = True
    with pytest.raises(RuntimeError, match="assert"):
        event.wait()


def test_closed_it_refuses_and_has_no_thread(unit, surface):
    stream = unit.stream("a")
    stream.record().then(lambda: None)
    unit.close()
    unit.close()
    assert surface.calls.count(("synchronize", "s0")) == 1
    with pytest.raises(KernelError, match="closed"):
        stream.record()
    deadline = time.perf_counter() + PATIENCE
    while [each for each in threading.enumerate() if each.name.startswith("cuda")]:
        assert time.perf_counter() < deadline
        time.sleep(0.005)


def test_memory_is_locked_for_all_devices_until_the_end(unit, surface, monkeypatch):
    memory = np.zeros(4096, np.uint8)
    assert unit.lock(memory)
    assert surface.calls == [("register", 4096, 1)]
    unit.close()
    assert surface.calls[-1] == ("unregister",)
    surface.register_fails, told = True, []
    monkeypatch.setattr(cuda.torch, "zeros", lambda *_, **where: told.append(where))
    assert not unit.lock(memory)
    assert told == [{"device": unit.device}]  # or the next launch would fail for it


def test_a_device_that_is_not_there_is_refused(surface):
    with pytest.raises(PlacementError, match="CUDA device 3") as caught:
        CudaAccelerator(3)
    assert "\n" not in str(caught.value)
