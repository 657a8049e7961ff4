"""The whole layer: numpy's bits on every path, neighbours without influence, requests refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.cpu_experts import ExpertLayer, available_isas
from hybrid.cpu_experts import layer as layer_module
from hybrid.cpu_experts import pool as pool_module
from hybrid.cpu_experts.pool import Pool
from hybrid.errors import ConfigError, PlacementError, RequestError
from tests.cpu_experts.native_call import filled, random_batch, same_bits
from tests.reference import experts as reference
from tests.reference.experts import LAYER

ISAS, MODES = available_isas(), ("int8", "int16", "bf16")
SHAPES = [(32, 32), (64, 96), (160, 64)]


@pytest.fixture
def crowded(monkeypatch):
    """Even the smallest job goes to the workers."""
    monkeypatch.setattr(layer_module, "ALONE_BYTES", 0)


def random_experts(seed, count, hidden, intermediate):
    rng = np.random.default_rng(seed)
    return [reference.random_expert(rng, hidden, intermediate) for _ in range(count)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numpy_gives_the_same_bits(crowded, mode, shape):
    experts = random_experts(1, 5, *shape)
    batch = random_batch(np.random.default_rng(2), 13, shape[0], 5, 4)
    want = LAYER[mode](experts, *batch)
    assert np.abs(want).max() > 0.01
    for isa in ISAS:
        for threads in (1, 2, 3):
            layer = filled(experts, isa=isa, threads=threads, activation=mode)
            assert same_bits(layer.forward(*batch), want), (isa, threads)


@given(st.integers(0, 70), st.integers(0, 9), st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_token_does_not_see_its_batch(tokens, k, threads, seed):
    rng = np.random.default_rng(seed)
    experts = random_experts(3, 6, 64, 96)
    x, ids, weights = random_batch(rng, tokens, 64, 6, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_module, "ALONE_BYTES", 0)
        batch = filled(experts, threads=threads).forward(x, ids, weights)
    slow = filled(experts, isa="portable", threads=1)
    for t in rng.permutation(tokens)[:5]:
        one = slice(t, t + 1)
        assert same_bits(batch[one], slow.forward(x[one], ids[one], weights[one]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("isa", ISAS)
def test_the_true_size(isa, mode):
    """7168 / 2048, two experts: every instruction set, one thread and two, and numpy."""
    experts = random_experts(5, 2, 7168, 2048)
    x, _, weights = random_batch(np.random.default_rng(5), 3, 7168, 2, 2)
    ids = np.array([[0, 1], [1, 1], [1, -1]], np.int32)
    got = filled(experts, isa=isa, threads=2, activation=mode).forward(x, ids, weights)
    one = filled(experts, isa=ISAS[0], threads=1, activation=mode)
    assert same_bits(got[1:2], one.forward(x[1:2], ids[1:2], weights[1:2]))
    if mode != "bf16":  # whose reference takes a minute at this size
        want = LAYER[mode](experts, x[2:], ids[2:], weights[2:])
        assert same_bits(got[2:], want)


# ---- extreme activations


def extremes(rng, hidden):
    """Rows whose activations are zero, subnormal, tiny, huge, infinite, NaN, or mixtures."""
    ordinary = rng.standard_normal(hidden).astype(np.float32)
    rows = [ordinary * np.float32(f) for f in (0, 1e-45, 3e-44, 9e-44, 1e-42, 1e-38, 1e30, 3e37)]
    rows += [np.where(np.arange(hidden) % 32 < 16, 0, ordinary)]  # half a group zero
    rows += [np.where(np.arange(hidden) < 32, 0, ordinary)]  # one group zero
    for value in (np.inf, -np.inf, np.nan, np.finfo(np.float32).max):
        rows.append(ordinary.copy())
        rows[-1][hidden // 2] = value
    rows.append(ordinary)
    return np.stack(rows).astype(np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:overflow|invalid:RuntimeWarning")
def test_extreme_activations(crowded, mode):
    experts = random_experts(6, 2, 64, 32)
    x = extremes(np.random.default_rng(6), 64)
    ids = np.tile(np.array([0, 1], np.int32), (len(x), 1))
    weights = np.full(ids.shape, 0.5, np.float32)
    want = LAYER[mode](experts, x, ids, weights)
    for isa in ISAS:
        got = filled(experts, isa=isa, threads=2, activation=mode).forward(x, ids, weights)
        assert same_bits(got, want), isa
    assert not np.isfinite(want[10:13]).any()  # non-finite in, non-finite out: all of the token
    assert np.isfinite(want[[0, 1, 2, 3, 4, 5, 8, 9, 14]]).all()  # and of no other
    assert not want[0].any()


# ---- routing


def test_slots_are_added_in_their_order():
    experts = random_experts(7, 8, 64, 32)
    x, _, weights = random_batch(np.random.default_rng(7), 1, 64, 8, 8)
    ids = np.array([[5, 2, 7, 0, 3, 6, 1, 4]], np.int32)
    layer = filled(experts)
    got = layer.forward(x, ids, weights)
    assert same_bits(got, LAYER["int8"](experts, x, ids, weights))
    by_expert = np.argsort(ids, axis=1)
    wrong = LAYER["int8"](experts, x, ids[:, by_expert[0]], weights[:, by_expert[0]])
    assert not same_bits(got, wrong)  # a sum in expert order is caught
    assert np.allclose(got, wrong, rtol=1e-4, atol=1e-5)  # though it is nearly the same
    dropped = ids.copy()
    dropped[0, 3] = -1
    assert not same_bits(got, layer.forward(x, dropped, weights))


def test_skipping_everything_gives_zeros():
    layer = filled(random_experts(8, 2, 32, 32))
    x = np.ones((3, 32), np.float32)
    nothing = layer.forward(x, np.full((3, 2), -1, np.int32), np.ones((3, 2), np.float32))
    assert not nothing.any()
    assert not layer.forward(x, np.empty((3, 0), np.int32), np.empty((3, 0), np.float32)).any()


def test_out_is_filled_and_returned():
    layer = filled(random_experts(9, 2, 32, 32))
    x, ids, weights = random_batch(np.random.default_rng(9), 4, 32, 2, 2)
    out = np.full((4, 32), np.nan, np.float32)
    assert layer.forward(x, ids, weights, out=out) is out
    assert same_bits(out, layer.forward(x, ids, weights))


def test_inputs_may_be_read_only_strided_or_unaligned():
    layer = filled(random_experts(9, 2, 32, 32))
    x, ids, weights = random_batch(np.random.default_rng(9), 4, 32, 2, 2)
    want = layer.forward(x, ids, weights)
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    unaligned[:] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    for other in (np.asfortranarray(x), np.repeat(x, 2, 0)[::2], unaligned, frozen):
        assert same_bits(layer.forward(other, np.asfortranarray(ids), weights), want)


# ---- what is refused


@pytest.fixture(scope="module")
def layer():
    return filled(random_experts(10, 4, 64, 32))


X, IDS, WEIGHTS = (
    np.ones((2, 64), np.float32),
    np.zeros((2, 3), np.int32),
    np.ones((2, 3), np.float32),
)


@pytest.mark.parametrize(
    ("x", "ids", "weights", "text"),
    [
        (X.astype(np.float64), IDS, WEIGHTS, "x is float64"),
        (X[0], IDS, WEIGHTS, "x is float32 .64,."),
        (X.tolist(), IDS, WEIGHTS, "x is <class 'list'>"),
        (X[:, :32], IDS, WEIGHTS, "x has 32 columns; hidden is 64"),
        (X.astype(">f4"), IDS, WEIGHTS, "x is >f4"),
        (X, IDS.astype(np.int64), WEIGHTS, "expert_ids is int64"),
        (X, IDS[:, :2], WEIGHTS, "do not fit"),
        (X, IDS[:1], WEIGHTS[:1], "do not fit"),
        (X, IDS, WEIGHTS.astype(np.float16), "weights is float16"),
        (X, IDS + 4, WEIGHTS, "expert id 4 is out of range; ids are -1 ... 3"),
        (X, IDS - 2, WEIGHTS, "expert id -2 is out of range"),
        (X, IDS + 2147483647, WEIGHTS, "out of range"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(layer, x, ids, weights, text):
    with pytest.raises(RequestError, match=text) as caught:
        layer.forward(x, ids, weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "out",
    [np.empty((2, 64)), np.empty((1, 64), np.float32), np.empty((2, 128), np.float32)[:, ::2], X],
    ids=["float64", "short", "strided", "overlapping"],
)
def test_an_unusable_out_is_refused(layer, out):
    with pytest.raises(RequestError, match="out"):
        layer.forward(X, IDS, WEIGHTS, out=out)


def test_a_batch_that_does_not_fit_in_memory_is_refused(layer, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(layer, "_pool", Pool(1))
    monkeypatch.setattr(pool_module.np, "zeros", full)
    with pytest.raises(PlacementError, match="beside the experts; use smaller batches"):
        layer.forward(X, IDS, WEIGHTS)


def test_an_expert_that_was_never_set_is_refused():
    layer = ExpertLayer(4, 64, 32)
    layer.set_expert(1, **random_experts(11, 1, 64, 32)[0].tensors)
    layer.forward(X, IDS + 1, WEIGHTS)
    untouched = np.full(X.shape, 7, np.float32)
    with pytest.raises(RequestError, match="expert 2 has no weights"):
        layer.forward(X, IDS + 2, WEIGHTS, out=untouched)
    assert (untouched == 7).all()
    with pytest.raises(RequestError, match="expert 4 of a layer with 4 experts"):
        layer.set_expert(4, **random_experts(11, 1, 64, 32)[0].tensors)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"activation": "int4"}, "activation is 'int4'; the modes are auto, int8, int16, bf16$"),
        ({"isa": "avx9"}, "isa is 'avx9'; this machine has portable"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": -1}, "threads is -1"),
        ({"threads": 10**6}, "threads is 1000000"),
    ],
)
def test_an_impossible_option_is_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        ExpertLayer(2, 64, 32, **options)
    with pytest.raises(ConfigError, match="n_experts is 0"):
        ExpertLayer(0, 64, 32)


WRONG_NUMBERS = [True, np.True_, 2.0, "2", None, np.array([1, 2]), np.float32(2)]


@pytest.mark.parametrize("value", WRONG_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", ["n_experts", "hidden", "intermediate"])
def test_a_size_that_is_no_whole_number_is_refused(name, value):
    sizes = {"n_experts": 2, "hidden": 64, "intermediate": 32, name: value}
    with pytest.raises(ConfigError, match=rf"^{name} is .*; it must be a whole number$"):
        ExpertLayer(**sizes)


@pytest.mark.parametrize("value", [True, 2.0, "2"])
def test_a_number_of_threads_that_is_no_whole_number_is_refused(value):
    with pytest.raises(ConfigError, match=r"^threads is .*; it must be a whole number$"):
        ExpertLayer(2, 64, 32, threads=value)


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint64])
def test_numpy_integers_are_numbers(kind):
    """int16 holds neither a record's size nor 3 of them."""
    expert = random_experts(12, 1, 64, 32)[0]
    layer = ExpertLayer(kind(40), kind(64), kind(32), threads=kind(1))
    assert type(layer.n_experts) is type(layer.shape.hidden) is type(layer.threads) is int
    layer.set_expert(kind(39), **expert.tensors)
    assert layer.records[39].any()
    assert not layer.records[:39].any()


@pytest.mark.parametrize("value", WRONG_NUMBERS, ids=repr)
def test_an_expert_that_is_no_whole_number_is_refused(layer, value):
    with pytest.raises(RequestError, match=r"^expert .* of a layer with \d+ experts$") as caught:
        layer.set_expert(value, **random_experts(12, 1, 64, 32)[0].tensors)
    assert caught.value.param == "e"


@pytest.mark.parametrize("part", ["gate", "up", "down"])
@pytest.mark.parametrize(
    "value",
    [None, (), (None, None), np.zeros((2, 3)), "ab", ([1], [2]), (np.zeros(3),) * 3],
    ids=["none", "empty", "nones", "array", "text", "lists", "three"],
)
def test_a_matrix_that_is_no_pair_of_arrays_is_refused(layer, part, value):
    tensors = {**random_experts(12, 1, 64, 32)[0].tensors, part: value}
    with pytest.raises(ConfigError, match=rf"^{part}( packed)? is [^\n]*$"):
        layer.set_expert(0, **tensors)


def test_lists_in_place_of_arrays_are_refused(layer):
    with pytest.raises(
        RequestError, match=r"^out is <class 'list'>; it must be contiguous float32"
    ):
        layer.forward(X, IDS, WEIGHTS, out=[1.0])
    with pytest.raises(ConfigError, match=r"^records is <class 'list'>; this layer needs uint8"):
        ExpertLayer(1, 64, 32, records=[])
