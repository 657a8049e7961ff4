"""The random layer is what it says: the checkpoint's layout, values that every peer can hold."""

import numpy as np
import pytest
import synthetic
from peer_llama_cpp import q4_0
from synthetic import Int4Matrix

from hybrid.cpu_experts.record import RecordShape


@pytest.fixture(scope="module")
def matrix():
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 16, (6, 96), np.uint8)
    scale = (rng.uniform(5e-4, 5e-3, (6, 3)).astype(np.float32).view(np.uint32) >> 16).astype(
        np.uint16
    )
    return codes, Int4Matrix(synthetic.packed_words(codes), scale)


def values(codes, matrix):
    """The weights, float64 [out, in], by the definition."""
    scale = synthetic.bf16_to_float32(matrix.scale).astype(np.float64)
    return (codes.astype(np.float64) - 8) * scale.repeat(32, axis=1)


def dequantised(blocks):
    """Q4_0 blocks as float64, by ggml's definition of block_q4_0."""
    out = np.empty((*blocks.shape[:2], 32))
    for row, group in np.ndindex(blocks.shape[:2]):
        block = blocks[row, group]
        scale = np.float64(block[:2].view(np.float16)[0])
        for j in range(16):
            out[row, group, j] = (int(block[2 + j]) % 16 - 8) * scale
            out[row, group, j + 16] = (int(block[2 + j]) // 16 - 8) * scale
    return out.reshape(len(blocks), -1)


def test_words_hold_the_first_input_in_their_lowest_bits(matrix):
    codes, packed = matrix
    words = packed.packed.view(np.uint32)
    assert words.shape == (6, 12)
    for index in range(8):
        assert (words >> np.uint32(4 * index) & 15 == codes[:, index::8]).all()
    assert (synthetic.codes_of(packed.packed) == codes).all()


def test_q4_0_is_lossless(matrix):
    codes, packed = matrix
    assert (dequantised(q4_0(packed)) == values(codes, packed)).all()


def test_a_nibble_in_the_wrong_place_is_seen(matrix):
    codes, packed = matrix
    blocks = q4_0(packed)
    blocks[2, 1, 5] = blocks[2, 1, 5] % 16 << 4 | blocks[2, 1, 5] >> 4
    assert (dequantised(blocks) != values(codes, packed)).any()


def test_experts_suit_every_peer():
    expert = synthetic.expert(0)
    assert {name: m.scale.shape for name, m in expert.items()} == {
        "gate": (2048, 224), "up": (2048, 224), "down": (7168, 64)
    }  # fmt: skip
    assert synthetic.codes_of(expert["down"].packed).min() == 1  # no -8
    scale = synthetic.bf16_to_float32(expert["up"].scale)
    assert (scale.astype(np.float16).astype(np.float32) == scale).all()
    again, other = synthetic.expert(0), synthetic.expert(1)
    assert (again["gate"].packed == expert["gate"].packed).all()
    assert (other["gate"].packed != expert["gate"].packed).any()


def test_the_record_is_counted_as_the_runtime_does():
    assert RecordShape(synthetic.HIDDEN, synthetic.INTERMEDIATE).nbytes == synthetic.RECORD_BYTES
    assert synthetic.EXPERT_MACS == 3 * 7168 * 2048


def test_activations_are_exact_in_bf16():
    x = synthetic.activations(3)
    assert x.shape == (3, 7168)
    assert not (x.view(np.uint32) & 0xFFFF).any()
    assert 0.9 < x.std() < 1.1


@pytest.mark.parametrize(("tokens", "experts"), [(1, 8), (5, 9), (200, 64), (64, 384)])
def test_routing_picks_distinct_experts_among_those_allowed(tokens, experts):
    routing = synthetic.routing(np.random.default_rng(tokens), tokens, experts)
    assert routing.ids.shape == (tokens, 8)
    assert routing.ids.dtype == np.int32
    assert routing.ids.min() >= 0
    assert routing.ids.max() < experts
    assert all(len(set(row)) == 8 for row in routing.ids.tolist())
    assert routing.weights.sum(axis=1) == pytest.approx(1)
    assert routing.distinct == len({e for row in routing.ids.tolist() for e in row})


def test_all_experts_are_picked_alike():
    """16,000 picks of 64: 250 each, standard deviation below 16; five of them make 80."""
    routing = synthetic.routing(np.random.default_rng(0), 2000, 64)
    counts = np.bincount(routing.ids.ravel(), minlength=64)
    assert abs(counts - 250).max() < 80
