"""Slots of RAM, whole or over two made-up NUMA nodes: a record goes in and comes out."""

import numpy as np
import pytest

from hybrid.cache import host_slots
from hybrid.cache.host_slots import HostSlots
from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts import pool as pool_module
from hybrid.cpu_experts.pool import Pool
from hybrid.cpu_experts.record import RecordShape
from hybrid.cpu_experts.topology import Topology
from tests.cache.parts import ONE_NODE, SHAPE, TWO_NODES, Source, content, record_of, slots

MACHINE = Topology(((0, 1), (2,)), (0, 1))
SHARES = [ONE_NODE, TWO_NODES, (*TWO_NODES, TWO_NODES[0])]


def test_every_slot_is_had_once():
    own = slots(5)
    taken = [own.take() for _ in range(5)]
    assert sorted(taken) == list(range(5))
    assert own.take() is None
    own.give(3)
    assert own.free == 1
    assert own.take() == 3


def test_a_slot_that_is_given_twice_is_a_mistake():
    own = slots(2)
    slot = own.take()
    own.give(slot)
    with pytest.raises(AssertionError, match="free already"):
        own.give(slot)


def test_all_but_the_used_can_be_reclaimed():
    own = slots(6)
    for _ in range(6):
        own.take()
    own.reclaim(iter([4, 1]))
    assert sorted(own.take() for _ in range(own.free)) == [0, 2, 3, 5]
    own.give(4)


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("shape", [SHAPE, RecordShape(64, 32), RecordShape(160, 224)])
def test_a_record_comes_out_as_it_went_in(shape, shares):
    own = slots(3, shares, shape)
    source = Source(shape)
    for slot in (2, 0, 1):
        assert own.pull(source, 1, slot, slot) == shape.nbytes
    for slot in range(3):
        np.testing.assert_array_equal(content(own, slot), record_of(1, slot, shape))
    own.fill(1, record_of(2, 7, shape))
    np.testing.assert_array_equal(content(own, 1), record_of(2, 7, shape))
    np.testing.assert_array_equal(content(own, 0), record_of(1, 0, shape))


@pytest.mark.parametrize("shares", SHARES)
def test_what_a_source_reads_into_is_on_whole_pages(shares):
    class Aligned(Source):
        def read(self, layer, expert, target):
            assert target.ctypes.data % 4096 == 0
            assert target.nbytes % 4096 == 0
            return super().read(layer, expert, target)

    own = slots(3, shares)
    for slot in range(3):
        own.pull(Aligned(), 0, slot, slot)


def test_a_part_that_is_forgotten_would_be_seen(monkeypatch):
    """The planted fault: the down blocks of a shard are not copied."""
    real = host_slots._parts
    monkeypatch.setattr(host_slots, "_parts", lambda *given: list(real(*given))[:1])
    own = slots(1, TWO_NODES)
    own.pull(Source(), 0, 0, 0)
    assert (content(own, 0) != record_of(0, 0)).any()


@pytest.fixture
def two_nodes(monkeypatch):
    """A pool on a machine with two nodes, wherever the test runs."""
    monkeypatch.setattr(pool_module, "pin", lambda core: None)
    pool = Pool(3, topology=MACHINE)
    assert pool.nodes == 2
    yield pool
    pool.close()


def test_experts_over_two_nodes_in_any_order_give_the_same_bits(two_nodes):
    experts, rng = 6, np.random.default_rng(0)
    plain = ExpertLayer(experts, SHAPE.hidden, SHAPE.intermediate)
    for expert in range(experts):
        plain.set_expert(expert, **_tensors(rng))
    own = HostSlots(SHAPE, experts + 3, two_nodes.shares)
    assert len(own.shards) == 2
    where = rng.permutation(experts + 3)[:experts].astype(np.int32)
    for expert, slot in enumerate(where):
        own.fill(int(slot), plain.records[expert])
    split = ExpertLayer(
        experts,
        SHAPE.hidden,
        SHAPE.intermediate,
        threads=3,
        shards=own.shards,
        where=where,
        pool=two_nodes,
    )
    x = rng.standard_normal((5, SHAPE.hidden)).astype(np.float32)
    ids = np.stack([rng.permutation(experts)[:4] for _ in range(5)]).astype(np.int32)
    weights = rng.random((5, 4)).astype(np.float32)
    want = plain.forward(x, ids, weights)
    np.testing.assert_array_equal(split.forward(x, ids, weights), want)
    where[[0, 1]] = where[[1, 0]]  # the planted fault: two experts have changed places
    assert (split.forward(x, ids, weights) != want).any()


def _tensors(rng):
    matrix = {
        "gate": (SHAPE.intermediate, SHAPE.hidden),
        "up": (SHAPE.intermediate, SHAPE.hidden),
        "down": (SHAPE.hidden, SHAPE.intermediate),
    }
    return {
        name: (
            rng.integers(-(2**31), 2**31, (rows, columns // 8), np.int64).astype(np.int32),
            rng.integers(0x3C00, 0x3D00, (rows, columns // 32)).astype(np.uint16),
        )
        for name, (rows, columns) in matrix.items()
    }
