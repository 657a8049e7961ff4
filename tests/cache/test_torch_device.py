"""The device tier on accelerators: rows in their places, no wait in between, no early overwrite."""

import threading

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hybrid.accelerator.host import HostAccelerator, Immediate, Link
from hybrid.backbone import Routing
from hybrid.cache import torch_device
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.torch_device import TorchDevice
from hybrid.cache.upload import Upload
from hybrid.cpu_experts import ExpertLayer
from hybrid.errors import KernelError
from tests.cache.parts import ONE_NODE, PATIENCE, SHAPE, TWO_NODES, content, record_of, slots
from tests.cache.streamed import record

EXPERTS, K = 12, 4
ON_DEVICE = range(7)  # these experts


class Inline(HostAccelerator):
    """Everything on the caller's thread, so that one mode sees every operation."""

    def stream(self, name, urgent=False):
        return Immediate(Link(None))


class Scene:
    """One layer: some experts in the slots of cards, all of them in a plain layer beside."""

    def __init__(self, cards=1, kind=HostAccelerator, rate=None):
        self.units = [kind(f"unit{at}", rate) for at in range(cards)]
        self.where = np.full(EXPERTS, -1, np.int32)
        counts = [4 + at for at in range(cards)] if cards > 1 else [len(ON_DEVICE)]
        self.device = TorchDevice(self.units, counts, SHAPE, [self.where], "int8")
        self.plain = ExpertLayer(EXPERTS, SHAPE.hidden, SHAPE.intermediate, threads=1)
        self.plain.where[:] = np.arange(EXPERTS)
        self.host = HostSlots(SHAPE, 2, ONE_NODE)
        for expert in range(EXPERTS):
            self.plain.records[expert] = record(0, expert, SHAPE)
        for slot, expert in enumerate(ON_DEVICE):
            self.host.fill(0, self.plain.records[expert])
            self.device.store(self.host, 0, slot)
            self.where[expert] = slot

    def begin(self, asked):
        """Launch the device's part and compute the rest; the rows of the CPU."""
        outputs = self.device.room(asked.expert_ids.size)
        outputs[:] = np.nan  # what is not written is no number
        there = np.isin(asked.expert_ids, ON_DEVICE)
        ids = np.where(there, asked.expert_ids, -1).astype(np.int32)
        if there.any():
            self.device.launch(0, asked, ids, outputs)
        rest = np.where(there, -1, asked.expert_ids).astype(np.int32)
        self.plain.outputs(asked.hidden, rest, outputs)
        return outputs

    def step(self, asked):
        return np.asarray(self.device.join(asked, self.begin(asked)))

    def check(self, asked):
        want = self.plain.forward(asked.hidden, asked.expert_ids, asked.weights)
        np.testing.assert_array_equal(self.step(asked), want)

    def close(self):
        self.device.close()
        for unit in self.units:
            unit.close()


def asked(tokens, seed=0, kept=False):
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.permutation(EXPERTS)[:K] for _ in range(tokens)]).astype(np.int32)
    ids[rng.random(ids.shape) < 0.1] = -1
    x = rng.standard_normal((tokens, SHAPE.hidden)).astype(np.float32)
    weights = rng.random(ids.shape).astype(np.float32)
    return Routing(x, ids, weights, torch.from_numpy(x.copy()) if kept else None)


@pytest.fixture(params=[(1, None), (1, 0.05), (2, None), (4, 0.5)], ids=str)
def scene(request):
    cards, rate = request.param
    scene = Scene(cards, rate=rate)
    yield scene
    scene.close()


@pytest.mark.parametrize("kept", [False, True])
def test_the_sum_is_the_cpus_bit_for_bit(scene, kept):
    for seed, tokens in enumerate((1, 1, 7, 2, 40, 1, 0, 3)):
        if tokens:
            scene.check(asked(tokens, seed, kept))


def test_rows_that_land_in_parts_are_the_same(scene, monkeypatch):
    monkeypatch.setattr(torch_device, "LANDING", 3)
    for seed in range(4):
        scene.check(asked(11, seed))


def test_what_the_backbone_left_on_the_device_is_what_is_used(scene):
    """The planted fault: it left something else."""
    one = asked(3, 1)
    other = Routing(one.hidden, one.expert_ids, one.weights, torch.ones(3, SHAPE.hidden))
    want = scene.plain.forward(one.hidden, one.expert_ids, one.weights)
    assert not np.array_equal(scene.step(other), want)
    for unfit in (torch.ones(2, SHAPE.hidden), torch.ones(3, SHAPE.hidden).bfloat16(), "rows"):
        scene.check(Routing(one.hidden, one.expert_ids, one.weights, unfit))


def test_a_row_that_does_not_land_would_be_seen(scene, monkeypatch):
    monkeypatch.setattr(torch_device, "_merge", lambda *_: None)
    scene.device._rows.of(8 * K).fill_(torch.nan)
    with pytest.raises(AssertionError):
        scene.check(asked(8, 2))


def test_rows_of_other_cards_must_be_waited_for(monkeypatch):
    """The planted fault: the sum does not come after them."""
    scene = Scene(2)
    real = scene.device._launch_beside

    def hasty(step, at, ids):
        gate = threading.Event()
        threading.Timer(0.1, gate.set).start()
        scene.device._cards[at].compute.run(lambda: gate.wait(PATIENCE) and None)
        real(step, at, ids)
        step.brought.clear()

    scene.check(asked(5))
    monkeypatch.setattr(scene.device, "_launch_beside", hasty)
    scene.device._rows.of(5 * K).fill_(torch.nan)
    with pytest.raises(AssertionError):
        scene.check(asked(5))
    scene.close()


@pytest.mark.parametrize("host", [slots(2), slots(2, TWO_NODES)], ids=["one node", "two nodes"])
def test_a_record_comes_back(scene, host):
    host.fill(0, record_of(1, 1))
    scene.device.store(host, 0, 2)
    scene.device.load(2, host, 1)
    np.testing.assert_array_equal(content(host, 1), record_of(1, 1))


def held(stream):
    """Keep a stream from going on until the gate opens."""
    gate = threading.Event()
    stream.run(lambda: gate.wait(PATIENCE) and None)
    return gate


@pytest.mark.parametrize("ordered", [True, False])
def test_a_slot_is_written_after_what_computes_from_it(ordered):
    """And the planted fault: the copy does not come after the computation."""
    scene = Scene()
    one = asked(4, 3)
    want = scene.plain.forward(one.hidden, one.expert_ids, one.weights)
    gate = held(scene.device._first.compute)
    outputs = scene.begin(one)  # enqueued, and nothing of it done
    if not ordered:
        scene.device._first._read = None
    scene.host.fill(1, np.zeros(SHAPE.nbytes, np.uint8))

    def overwrite():
        for slot in range(len(ON_DEVICE)):
            scene.device.store(scene.host, 1, slot)

    writer = threading.Thread(target=overwrite)
    writer.start()
    writer.join(0.2)
    assert writer.is_alive() is ordered
    gate.set()
    got = np.asarray(scene.device.join(one, outputs))
    writer.join(PATIENCE)
    assert np.array_equal(got, want) is ordered
    scene.close()


def test_the_host_enqueues_and_does_not_wait():
    """Up to the join, which on a host's device is the caller's to wait for."""
    scene = Scene()
    gate = held(scene.device._first.compute)
    outputs = scene.begin(asked(1))
    assert not scene.device._first.compute.record().done
    gate.set()
    scene.device.join(asked(1), outputs)
    scene.close()


def test_an_error_is_raised_by_the_join_and_forgotten_when_settled(scene, monkeypatch):
    def broken(*_):
        raise KernelError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(scene.device._first._experts, "outputs", broken)
        outputs = scene.begin(one := asked(9, 4))
        with pytest.raises(KernelError, match="planted"):
            scene.device.join(one, outputs)
    scene.device.settle()
    scene.check(asked(9, 5))


def test_a_copy_that_fails_is_the_callers_error_and_nobody_elses(scene, monkeypatch):
    def broken(*_):
        raise KernelError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "copy_", broken)
        with pytest.raises(KernelError, match="planted"):
            scene.device.store(scene.host, 0, 0)
    test_a_record_comes_back(scene, slots(2))
    test_a_record_comes_back(scene, slots(2))


def test_settled_in_the_middle_nothing_is_written_any_more(scene):
    for seed in range(6):
        scene.begin(asked(5, seed))
        scene.device.settle()
        scene.check(asked(4, seed))


def test_memory_of_the_cpus_rows_is_not_written_while_it_is_read():
    scene = Scene()
    one = asked(2, 7)
    outputs = scene.begin(one)
    gate = held(scene.device._first.compute)
    threading.Timer(0.05, gate.set).start()
    scene.device._land(
        np.ones(outputs.shape[0], np.bool_),
        torch.ones(outputs.shape[0], 1),
        outputs,
        scene.device._rows.of(len(outputs)),
    )
    assert not gate.is_set()
    scene.device.room(8)
    assert gate.is_set()
    scene.close()


def test_an_upload_waits_for_the_one_before_it():
    unit = HostAccelerator("unit")
    stream = unit.stream("up")
    upload = Upload(unit, stream)
    first, second = np.arange(3, dtype=np.int32), np.array([[0.5], [2.0]], np.float32)
    one, two = upload.send(first, second)
    stream.record().wait()
    np.testing.assert_array_equal(one.numpy(), first)
    np.testing.assert_array_equal(two.numpy(), second)
    gate = held(stream)
    upload.send(first)
    threading.Timer(0.05, gate.set).start()
    upload.send(first)
    assert gate.is_set()
    unit.close()


class Noted(TorchDispatchMode):
    """Operations that make a host wait for its device, and how many there were in all."""

    waits = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "item")

    def __init__(self):
        super().__init__()
        self.seen, self.waiting = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen += 1
        if name in self.waits:
            self.waiting.append(name)
        return func(*args, **kwargs or {})


@pytest.fixture
def quiet_operators(monkeypatch):
    """The operators of the experts, whose plain bodies are no statement about the device's."""
    from hybrid.gpu_experts import GpuExperts

    monkeypatch.setattr(GpuExperts, "outputs", lambda self, x, ids, rows: rows.fill_(1.0))
    monkeypatch.setattr(
        torch_device, "combine", lambda rows, ids, weights: rows[: len(ids)].clone()
    )


@pytest.mark.parametrize("cards", [1, 3])
@pytest.mark.parametrize("kept", [False, True])
def test_no_operation_of_a_step_makes_the_host_wait(cards, kept, quiet_operators):
    scene = Scene(cards, Inline)
    with Noted() as noted:
        for tokens in (1, 30):
            scene.step(asked(tokens, 1, kept))
    assert noted.seen > 10
    assert not noted.waiting


def test_an_operation_that_waits_would_be_seen(quiet_operators, monkeypatch):
    real = torch_device._merge

    def waiting(rows, of_host, landed):
        if of_host.any().item():
            real(rows, of_host, landed)

    monkeypatch.setattr(torch_device, "_merge", waiting)
    scene = Scene(1, Inline)
    with Noted() as noted:
        scene.step(asked(2, 1))
    assert noted.waiting


def test_closed_it_has_no_threads():
    scene = Scene(3)
    scene.step(asked(2))
    scene.device.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("unit")]
    with pytest.raises(KernelError, match="closed"):
        scene.step(asked(2))
