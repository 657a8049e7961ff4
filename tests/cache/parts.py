"""Pieces of a cache for tests: sources in memory and gates that open when the test says so."""

import threading

import numpy as np

from hybrid.cache.host_slots import HostSlots
from hybrid.cpu_experts.cores import Share
from hybrid.cpu_experts.record import RecordShape

SHAPE = RecordShape(96, 64)
ONE_NODE = (Share(None, (None,)),)
TWO_NODES = (Share(0, (None,)), Share(1, (None,)))
PATIENCE = 30  # seconds until a test that hangs is called so


def record_of(layer, expert, shape=SHAPE):
    """The bytes that a source has for an expert."""
    rng = np.random.default_rng((layer, expert))
    return rng.integers(0, 256, shape.nbytes, dtype=np.uint8)


def slots(count, shares=ONE_NODE, shape=SHAPE):
    return HostSlots(shape, count, shares)


def content(of, slot):
    """A slot's record."""
    record = np.zeros(of.shape.nbytes, np.uint8)
    of.copy_out(slot, record)
    return record


class Source:
    """Records from nowhere. Reads wait for the gate; `errors` says which fail, and how."""

    kind = "records"

    def __init__(self, shape=SHAPE, *, is_open=True):
        self.shape, self.errors, self.closed = shape, {}, False
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.asked = []
        if is_open:
            self.gate.set()

    def read(self, layer, expert, target):
        self.asked.append((layer, expert))
        self.begun.release()
        assert self.gate.wait(PATIENCE)
        if expert in self.errors:
            target[:] = 255  # a failed read leaves anything
            raise self.errors[expert]
        target[: self.shape.nbytes] = record_of(layer, expert, self.shape)
        return self.shape.nbytes

    def close(self):
        self.closed = True


class Tape:
    """A device that only stores bytes, and copies when the gate is open."""

    def __init__(self, count, shape=SHAPE, *, is_open=True):
        self.count = count
        self.records = np.zeros((count, shape.nbytes), np.uint8)
        self.gate = threading.Event()
        self.error = None
        if is_open:
            self.gate.set()

    def store(self, source, host_slot, slot):
        self._copy()
        source.copy_out(host_slot, self.records[slot])

    def load(self, slot, target, host_slot):
        self._copy()
        target.fill(host_slot, self.records[slot])

    def _copy(self):
        assert self.gate.wait(PATIENCE)
        if self.error is not None:
            raise self.error
