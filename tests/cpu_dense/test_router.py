"""Selection at its edges: ties, NaN, infinities, every k."""

from dataclasses import replace

import numpy as np
import pytest

from tests.cpu_dense.models import SMALL, Tensors, backbone_of, random_tensors, stream

GATE, BIAS = "model.layers.1.mlp.gate.weight", "model.layers.1.mlp.gate.e_score_correction_bias"


def flat_gate() -> Tensors:
    """All experts score one half, so that the bias alone selects."""
    tensors = random_tensors(SMALL)
    tensors[GATE][:] = 0
    return tensors


def chosen(tensors: Tensors, x: np.ndarray, k: int = 8) -> np.ndarray:
    text = replace(SMALL, num_experts_per_tok=k)
    return backbone_of(text, tensors).route(1, x).expert_ids


def test_ties_go_to_the_lower_index():
    tensors = flat_gate()
    tensors[BIAS][:] = 0
    tensors[BIAS][[7, 40]] = 0.5
    assert chosen(tensors, stream(SMALL, 1)).tolist() == [[7, 40, 0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("k", [1, 2, 49, 50])
def test_every_k(k):
    tensors = flat_gate()
    expected = np.argsort(-(tensors[BIAS] + np.float32(0.5)), kind="stable")[:k]
    assert chosen(tensors, stream(SMALL, 2), k).tolist() == [expected.tolist()] * 2


def test_weights_come_in_the_order_of_selection_and_without_the_bias():
    tensors = flat_gate()
    routing = backbone_of(SMALL, tensors).route(1, stream(SMALL, 1))
    assert np.allclose(routing.weights, SMALL.routed_scaling_factor / 8, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_bias_never_gives_a_bad_id(bad):
    tensors = flat_gate()
    tensors[BIAS][[0, 3]] = bad
    ids = chosen(tensors, stream(SMALL, 1))[0].tolist()
    assert len(set(ids)) == 8
    assert (0 in ids and 3 in ids) == (bad == np.inf)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_a_bad_token_gets_valid_ids_and_spoils_no_other(bad):
    backbone, x = backbone_of(SMALL, random_tensors(SMALL)), stream(SMALL, 3)
    clean = backbone.route(1, x)
    x[1, 5] = bad
    routing = backbone.route(1, x)
    assert sorted(set(routing.expert_ids[1])) == sorted(routing.expert_ids[1])
    assert routing.expert_ids.min() >= 0
    assert routing.expert_ids.max() < SMALL.n_routed_experts
    for row in (0, 2):
        assert np.array_equal(routing.expert_ids[row], clean.expert_ids[row])
        assert np.array_equal(routing.weights[row], clean.weights[row])


def test_a_float32_router_is_not_rounded():
    """Rounding it to bf16 would pick other experts."""
    tensors, x = random_tensors(SMALL), stream(SMALL, 200)
    rng = np.random.default_rng(3)
    gate = rng.standard_normal((50, 64)).astype(np.float32) / 4
    tensors[GATE] = gate
    routing = backbone_of(SMALL, tensors).route(1, x)
    scores = 1 / (1 + np.exp(-(routing.hidden.astype(np.float64) @ gate.T.astype(np.float64))))
    exact = np.argsort(-(scores + tensors[BIAS]), axis=1, kind="stable")[:, :8]
    assert np.array_equal(routing.expert_ids, exact)
    tensors[GATE] = (gate.view(np.uint32) >> 16).astype(np.uint16)
    assert not np.array_equal(backbone_of(SMALL, tensors).route(1, x).expert_ids, exact)
