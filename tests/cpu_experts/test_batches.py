"""How a batch is cut: chunks of tokens, stripes of columns, calls of rows. None may show.

Sizes here are such that each cut happens, and unevenly. A row computed alone is cut nowhere.
"""

import numpy as np
import pytest

from hybrid.cpu_experts import available_isas
from hybrid.cpu_experts import layer as layer_module
from hybrid.cpu_experts.job import CHUNK_TOKENS, STRIPE_BYTES
from hybrid.cpu_experts.pool import Pool
from hybrid.cpu_experts.rows.direct import MAX_ROWS as DIRECT_ROWS
from hybrid.cpu_experts.rows.kernel import MAX_ROWS
from hybrid.cpu_experts.rows.modes import MODES
from tests.cpu_experts.native_call import filled, random_batch, same_bits
from tests.reference import experts as reference

ISAS = available_isas()


@pytest.fixture
def crowded(monkeypatch):
    """Even the smallest job goes to the workers."""
    monkeypatch.setattr(layer_module, "ALONE_BYTES", 0)


def random_experts(seed, count, hidden, intermediate):
    rng = np.random.default_rng(seed)
    return [reference.random_expert(rng, hidden, intermediate) for _ in range(count)]


def in_parts(layer, batch, size):
    """The same batch, `size` tokens at a time."""
    x, ids, weights = batch
    parts = [slice(at, at + size) for at in range(0, len(x), size)]
    return np.concatenate([layer.forward(x[part], ids[part], weights[part]) for part in parts])


def test_a_batch_longer_than_a_chunk(crowded):
    experts = random_experts(4, 3, 32, 32)
    batch = random_batch(np.random.default_rng(4), 2 * CHUNK_TOKENS + 7, 32, 3, 2)
    layer = filled(experts, threads=2)
    together = layer.forward(*batch)
    assert same_bits(together, in_parts(layer, batch, 100))
    x, ids, weights = batch
    for t in (0, CHUNK_TOKENS - 1, CHUNK_TOKENS, 2 * CHUNK_TOKENS, len(x) - 1):
        one = slice(t, t + 1)
        assert same_bits(together[one], layer.forward(x[one], ids[one], weights[one]))


@pytest.mark.parametrize(
    ("tokens", "k", "hidden", "stripe"),
    [(2100, 8, 1056, 1024), (2048, 8, 1312, 1024), (1100, 8, 2080, 1792), (1700, 40, 544, 256)],
    ids=str,
)
@pytest.mark.parametrize("mode", ["int8", "int16"])
def test_a_batch_wider_than_a_stripe(crowded, mode, tokens, k, hidden, stripe):
    """o does not fit: columns are computed in stripes, the last of them narrower."""
    fit = STRIPE_BYTES // (4 * min(tokens, CHUNK_TOKENS) * k)
    assert stripe == max(256, fit // 256 * 256) < hidden
    layer = filled(random_experts(5, 48, hidden, 32), threads=2, activation=mode)
    batch = random_batch(np.random.default_rng(6), tokens, hidden, 48, k)
    assert same_bits(layer.forward(*batch), in_parts(layer, batch, 150))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("isa", ISAS)
def test_a_row_has_its_bits_in_a_batch_of_any_size(isa, mode):
    """All tokens ask for the same experts, whose rows take another shape, or more calls."""
    experts = random_experts(7, 2, 64, 96)
    x, _, weights = random_batch(np.random.default_rng(7), 2 * MAX_ROWS + 3, 64, 2, 2)
    ids = np.tile(np.array([1, 0], np.int32), (len(x), 1))
    layer = filled(experts, isa=isa, threads=1, activation=mode)
    alone = in_parts(layer, (x, ids, weights), 1)
    edges = DIRECT_ROWS, MAX_ROWS, 2 * MAX_ROWS
    for tokens in sorted({2, 3, 17, *[edge + more for edge in edges for more in (-1, 0, 1)]}):
        batch = layer.forward(x[:tokens], ids[:tokens], weights[:tokens])
        assert same_bits(batch, alone[:tokens]), tokens


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("tokens", "k"), [(1, 8), (2, 4), (3, 2), (4, 2), (4, 30)])
def test_one_token_may_ask_for_an_expert_several_times(mode, tokens, k):
    """Then an expert has more rows than the batch has tokens."""
    experts = random_experts(8, 2, 64, 32)
    x, _, weights = random_batch(np.random.default_rng(8), tokens, 64, 2, k)
    ids = np.zeros((tokens, k), np.int32)
    want = reference.LAYER[mode](experts, x, ids, weights)
    for isa in ISAS:
        layer = filled(experts, isa=isa, threads=1, activation=mode)
        layer.forward(*(part[::-1].copy() for part in (x, ids + 1, weights)))  # soil the scratch
        assert same_bits(layer.forward(x, ids, weights), want), isa


def test_no_call_is_left_with_too_few_rows():
    """64 * 63 + 1 rows of one expert: 63 full calls would leave one row, in the wrong encoding."""
    experts = random_experts(9, 1, 32, 32)
    x, ids, weights = random_batch(np.random.default_rng(9), CHUNK_TOKENS, 32, 1, 2, skip=False)
    surplus = ids.size - (MAX_ROWS * (MAX_ROWS - 1) + 1)
    ids[:surplus, 1] = -1
    layer = filled(experts, threads=1)
    assert same_bits(layer.forward(x, ids, weights), in_parts(layer, (x, ids, weights), 50))


@pytest.mark.parametrize("mode", MODES)
def test_what_a_larger_batch_left_in_the_scratch_does_not_show(mode):
    experts = random_experts(10, 4, 96, 64)
    layer = filled(experts, threads=1, activation=mode)
    batches = [random_batch(np.random.default_rng(n), n, 96, 4, 3) for n in (1, 6, 30, 130)]
    wants = [reference.LAYER[mode](experts, *batch) for batch in batches[:2]]
    for x, ids, weights in reversed(batches):
        layer.forward(x * np.float32(np.nan), ids, weights)  # every encoded scale is NaN
    for batch, want in zip(batches, wants, strict=False):
        assert same_bits(layer.forward(*batch), want)


def test_scratch_is_made_once_and_used_again(monkeypatch):
    """Grown where a batch needs more than any before, never made anew or given back."""
    pool, grown = Pool(1), []
    grow = pool.grow_scratch
    monkeypatch.setattr(pool, "grow_scratch", lambda nbytes: (grown.append(nbytes), grow(nbytes)))
    layers = [filled(random_experts(11, 3, 64, 32), threads=1) for _ in range(2)]
    for layer in layers:
        monkeypatch.setattr(layer, "_pool", pool)
    batches = [random_batch(np.random.default_rng(11), n, 64, 3, 2) for n in (40, 1, 7, 40)]
    for layer in layers:
        for batch in batches:
            layer.forward(*batch)
            assert len(grown) == 1
    kept = pool.scratch.address
    layers[0].forward(*batches[0])
    assert pool.scratch.address == kept
    layers[0].forward(*random_batch(np.random.default_rng(11), 900, 64, 3, 2))
    assert len(grown) == 2
    assert grown[1] > grown[0]


def test_scratch_is_bounded_however_long_the_batch(monkeypatch):
    pool = Pool(1)
    layer = filled(random_experts(12, 2, 32, 32), threads=1)
    monkeypatch.setattr(layer, "_pool", pool)
    sizes = []
    for tokens in (CHUNK_TOKENS, 3 * CHUNK_TOKENS):
        layer.forward(*random_batch(np.random.default_rng(12), tokens, 32, 2, 2))
        sizes.append(pool.scratch.nbytes)
    assert sizes[0] == sizes[1]
