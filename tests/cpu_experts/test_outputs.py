"""`outputs` in any number of parts, then `combine`: the bits of `forward`."""

import numpy as np
import pytest

from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.pool import Pool
from hybrid.errors import RequestError

HIDDEN, INTERMEDIATE, EXPERTS = 96, 64, 7
SHAPES = [(1, 1), (1, 4), (3, 2), (40, 7), (2100, 3)]


def made(seed=0, **options) -> ExpertLayer:
    random = np.random.default_rng(seed)
    layer = ExpertLayer(EXPERTS, HIDDEN, INTERMEDIATE, threads=2, **options)
    records = layer.shards[0].records
    matrix = {
        "gate": (INTERMEDIATE, HIDDEN),
        "up": (INTERMEDIATE, HIDDEN),
        "down": (HIDDEN, INTERMEDIATE),
    }
    plain = ExpertLayer(EXPERTS, HIDDEN, INTERMEDIATE)
    for expert in range(EXPERTS):
        tensors = {
            name: (
                random.integers(-(2**31), 2**31, (rows, columns // 8), np.int64).astype(np.int32),
                random.integers(0x3C00, 0x3D00, (rows, columns // 32)).astype(np.uint16),
            )
            for name, (rows, columns) in matrix.items()
        }
        plain.set_expert(expert, **tensors)
    where = layer.where
    records[where[where >= 0]] = plain.records[where >= 0]
    if (where < 0).all():
        records[:EXPERTS] = plain.records
        where[:] = np.arange(EXPERTS)
    return layer


def asked(tokens, k, seed=1):
    random = np.random.default_rng(seed)
    x = random.standard_normal((tokens, HIDDEN)).astype(np.float32)
    ids = random.integers(-1, EXPERTS, (tokens, k)).astype(np.int32)
    return x, ids, random.random((tokens, k)).astype(np.float32)


@pytest.mark.parametrize("activation", ["int8", "int16", "bf16"])
@pytest.mark.parametrize(("tokens", "k"), SHAPES)
def test_parts_in_any_order_and_their_sum_are_the_whole(tokens, k, activation):
    layer = made(activation=activation)
    x, ids, weights = asked(tokens, k)
    whole = layer.forward(x, ids, weights)
    outputs = np.full((ids.size, HIDDEN), np.nan, np.float32)
    part_of = np.random.default_rng(2).integers(0, 3, EXPERTS)
    for part in (2, 0, 1):
        layer.outputs(x, np.where(part_of[ids] == part, ids, -1).astype(np.int32), outputs)
    np.testing.assert_array_equal(layer.combine(outputs, ids, weights), whole)
    assert np.isnan(outputs[ids.ravel() < 0]).all()  # rows of nobody stay untouched


def test_a_lost_output_shows():
    """The planted fault: without it the test above could not fail."""
    layer = made()
    x, ids, weights = asked(4, 3)
    outputs = np.zeros((ids.size, HIDDEN), np.float32)
    layer.outputs(x, np.where(ids == ids.max(), -1, ids), outputs)
    assert (layer.combine(outputs, ids, weights) != layer.forward(x, ids, weights)).any()


def test_records_may_lie_in_any_order_and_move_between_calls():
    x, ids, weights = asked(9, 4)
    want = made().forward(x, ids, weights)
    random = np.random.default_rng(3)
    layer = made(where=random.permutation(EXPERTS).astype(np.int32))
    np.testing.assert_array_equal(layer.forward(x, ids, weights), want)
    order = random.permutation(EXPERTS)
    layer.shards[0].records[order] = layer.shards[0].records.copy()
    layer.where[:] = order[layer.where]
    np.testing.assert_array_equal(layer.forward(x, ids, weights), want)


def test_two_layers_with_pools_of_their_own_fill_one_array():
    here, there = made(), made(pool=Pool(2))
    x, ids, weights = asked(6, 4)
    outputs = np.empty((ids.size, HIDDEN), np.float32)
    here.outputs(x, np.where(ids % 2 == 0, ids, -1).astype(np.int32), outputs)
    there.outputs(x, np.where(ids % 2 == 1, ids, -1).astype(np.int32), outputs)
    want = here.forward(x, ids, weights)
    np.testing.assert_array_equal(here.combine(outputs, ids, weights), want)


def test_an_expert_that_is_elsewhere_is_refused():
    layer = made()
    layer.where[3] = -1
    x, _, _ = asked(1, 1)
    outputs = np.zeros((1, HIDDEN), np.float32)
    with pytest.raises(RequestError, match="expert 3"):
        layer.outputs(x, np.array([[3]], np.int32), outputs)


@pytest.mark.parametrize("shape", [(3, HIDDEN), (4, HIDDEN - 1)])
def test_an_array_that_does_not_fit_is_refused(shape):
    layer = made()
    x, ids, weights = asked(2, 2)
    with pytest.raises(RequestError, match="outputs is float32"):
        layer.outputs(x, ids, np.zeros(shape, np.float32))
    with pytest.raises(RequestError, match="outputs is float32"):
        layer.combine(np.zeros(shape, np.float32), ids, weights)
