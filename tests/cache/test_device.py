"""The device made of RAM: stores, computes beside the caller, and says what went wrong."""

import threading

import numpy as np
import pytest

from hybrid.backbone import Routing
from hybrid.cache.device import HostDevice
from hybrid.cache.workers import Task
from hybrid.cpu_experts import ExpertLayer
from hybrid.errors import RequestError
from tests.cache.parts import PATIENCE, SHAPE, TWO_NODES, content, record_of, slots

EXPERTS = 5


@pytest.fixture
def where():
    """Layer 0 has none; experts 1 and 3 of layer 1 are on the device."""
    own = np.full(EXPERTS, -1, np.int32)
    own[[1, 3]] = [2, 0]
    return [None, own]


@pytest.fixture
def device(where):
    device = HostDevice(SHAPE, 3, where, None, "int8")
    yield device
    device.close()


@pytest.fixture
def loaded(device):
    """With records that are the same bytes in a plain layer."""
    plain = ExpertLayer(EXPERTS, SHAPE.hidden, SHAPE.intermediate, threads=1)
    plain.where[:] = np.arange(EXPERTS)
    plain.records[:] = np.random.default_rng(0).integers(0, 60, plain.records.shape, np.uint8)
    own = slots(1)
    slot = own.take()
    for expert, to in ((1, 2), (3, 0)):
        own.fill(slot, plain.records[expert])
        device.store(own, slot, to)
    return plain


def asked(*ids):
    x = np.random.default_rng(1).standard_normal((1, SHAPE.hidden)).astype(np.float32)
    return x, np.array([ids], np.int32)


@pytest.mark.parametrize("host", [slots(2), slots(2, TWO_NODES)], ids=["one node", "two nodes"])
def test_a_record_comes_back(device, host):
    host.fill(0, record_of(1, 1))
    device.store(host, 0, 2)
    device.load(2, host, 1)
    np.testing.assert_array_equal(content(host, 1), record_of(1, 1))


def test_it_writes_its_rows_and_no_other(device, loaded):
    x, ids = asked(1, -1, 3)
    outputs = np.full((3, SHAPE.hidden), np.float32(7))
    device.launch(1, Routing(x, ids, ids), ids, outputs)
    device.collect()
    want = np.full_like(outputs, 7)
    loaded.outputs(x, ids, want)
    np.testing.assert_array_equal(outputs, want)
    assert (outputs[1] == 7).all()
    assert (outputs[0] != 7).any()


def test_what_goes_wrong_is_raised_by_collect_alone(device, loaded):
    x, ids = asked(1, 2)  # 2 is not here
    outputs = np.zeros((2, SHAPE.hidden), np.float32)
    device.launch(1, Routing(x, ids, ids), ids, outputs)
    with pytest.raises(RequestError, match="expert 2"):
        device.collect()
    device.launch(1, Routing(x, ids, ids), ids, outputs)
    device.settle()
    x, ids = asked(1, 3)
    device.launch(1, Routing(x, ids, ids), ids, outputs)
    device.collect()


def test_it_computes_while_the_caller_goes_on(device, loaded, monkeypatch):
    begun, gate, real = threading.Event(), threading.Event(), ExpertLayer.outputs

    def late(*arguments):
        begun.set()
        assert gate.wait(PATIENCE)
        real(*arguments)

    monkeypatch.setattr(ExpertLayer, "outputs", late)
    x, ids = asked(1, 3)
    outputs = np.zeros((2, SHAPE.hidden), np.float32)
    device.launch(1, Routing(x, ids, ids), ids, outputs)
    assert begun.wait(PATIENCE)  # what has not begun would be cancelled
    assert not outputs.any()
    threading.Timer(0.05, gate.set).start()
    device.settle()
    assert outputs.any()


def test_what_the_thread_has_not_begun_the_caller_does(device, loaded):
    """And once: a second `collect` has nothing to do."""
    gate = threading.Event()
    device._worker.submit(Task(lambda: gate.wait(PATIENCE)))
    x, ids = asked(1, 3)
    outputs, want = np.zeros((2, 2, SHAPE.hidden), np.float32)
    device.launch(1, Routing(x, ids, ids), ids, outputs)
    device.collect()
    loaded.outputs(x, ids, want)
    np.testing.assert_array_equal(outputs, want)
    outputs[:] = 0
    device.collect()
    gate.set()
    device.settle()
    assert not outputs.any()


def test_closed_it_has_no_threads(where):
    HostDevice(SHAPE, 3, where, None, "int8", threads=2).close()
    assert not [each for each in threading.enumerate() if each.name.startswith("device")]
