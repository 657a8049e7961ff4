"""Every verb against the float64 reference, and the faults that the comparison must see."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hybrid.config import TextConfig
from tests.cpu_dense.bounds import Bounds, Near, excess
from tests.cpu_dense.models import (
    SHAPES,
    SMALL,
    Tensors,
    backbone_of,
    cached_rows,
    random_tensors,
    reference_of,
    stream,
)
from tests.reference.backbone import Reference

TOKENS = 9
ALL_SHAPES = pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())


def bounds_of(text: TextConfig, tensors: Tensors, kind: type[Reference] = Reference) -> Bounds:
    return Bounds(reference_of(text, tensors, kind))


@ALL_SHAPES
def test_embed_is_exact(text):
    tensors = random_tensors(text)
    ids = [0, text.vocab_size - 1, 7, 7]
    expected = reference_of(text, tensors).embed(ids)
    assert np.array_equal(backbone_of(text, tensors).embed(ids), expected)


@ALL_SHAPES
def test_the_cache_row(text):
    tensors, x = random_tensors(text), stream(text, TOKENS)
    backbone = backbone_of(text, tensors)
    backbone.attend(1, x, 70)
    expected = bounds_of(text, tensors).latents(1, Near.exact(x), 70)
    rows = cached_rows(backbone, 1, 70 + TOKENS)[70:]
    assert excess(rows, expected) < 1


@ALL_SHAPES
@pytest.mark.parametrize("earlier", [0, 5, 150])
def test_attend(text, earlier):
    """After `earlier` positions, so that blocks of the softmax are full, partial and several."""
    tensors, x = random_tensors(text), stream(text, TOKENS)
    backbone = backbone_of(text, tensors)
    if earlier:
        backbone.attend(0, stream(text, earlier, seed=2), 0)
    computed = backbone.attend(0, x, earlier)
    rows = cached_rows(backbone, 0, earlier + TOKENS)
    expected = bounds_of(text, tensors).attend(0, Near.exact(x), earlier, rows)
    assert excess(computed, expected) < 1


@pytest.mark.parametrize("start", [100_000, 262_100])
def test_rotation_at_long_positions(start):
    """Cache rows; float32 angles of float32 frequencies, as in training."""
    text = replace(SMALL, num_hidden_layers=1, first_k_dense_replace=1, qk_rope_head_dim=64)
    tensors, x = random_tensors(text), stream(text, 3)
    backbone = backbone_of(text, tensors, kv_tokens=start + 3)
    backbone.attend(0, x, start)
    rows = cached_rows(backbone, 0, start + 3)[start:]
    assert excess(rows, bounds_of(text, tensors).latents(0, Near.exact(x), start)) < 1


@ALL_SHAPES
def test_dense(text):
    tensors, x = random_tensors(text), stream(text, TOKENS)
    expected = bounds_of(text, tensors).dense(0, Near.exact(x))
    assert excess(backbone_of(text, tensors).dense(0, x), expected) < 1


@ALL_SHAPES
def test_route(text):
    tensors, x = random_tensors(text), stream(text, TOKENS)
    bounds = bounds_of(text, tensors)
    expected = bounds.reference.route(1, x.astype(np.float64))
    computed = backbone_of(text, tensors).route(1, x)
    assert excess(computed.hidden, bounds.post_norm(1, Near.exact(x))) < 1
    assert_margin(expected.selection, bounds.scores(1, Near.exact(x)).error, text)
    assert np.array_equal(computed.expert_ids, expected.expert_ids)
    assert excess(computed.weights, bounds.routing_weights(1, Near.exact(x))) < 1


def assert_margin(selection: np.ndarray, error: np.ndarray, text: TextConfig) -> None:
    """The chosen scores are far enough apart for their order to be certain."""
    ordered = -np.sort(-selection, axis=1)[:, : text.num_experts_per_tok + 1]
    assert np.min(-np.diff(ordered, axis=1)) > 2 * error.max()


@ALL_SHAPES
def test_shared(text):
    tensors, x = random_tensors(text), stream(text, TOKENS)
    backbone = backbone_of(text, tensors)
    routing = backbone.route(1, x)
    expected = bounds_of(text, tensors).swiglu(
        Near.exact(routing.hidden), "model.layers.1.mlp.shared_experts"
    )
    assert excess(backbone.shared(1, routing), expected) < 1


@ALL_SHAPES
def test_logits(text):
    tensors, x = random_tensors(text), stream(text, TOKENS)
    expected = bounds_of(text, tensors).logits(Near.exact(x))
    assert excess(backbone_of(text, tensors).logits(x), expected) < 1


def test_combine_and_last():
    backbone = backbone_of(SMALL, random_tensors(SMALL))
    x, shared, routed = (stream(SMALL, 3, seed=s) for s in (1, 2, 3))
    assert np.array_equal(backbone.combine(x, shared, routed), x + (routed + shared))
    assert np.array_equal(backbone.combine(x, None, routed), x + routed)
    assert np.array_equal(backbone.last(x), x[2:])


# What the comparison must see. Each fault is one of spec §7's usual mistakes.


class ScaleWithoutYarn(Reference):
    def softmax_scale(self):
        return (self.text.qk_nope_head_dim + self.text.qk_rope_head_dim) ** -0.5


class TablesScaledToo(Reference):
    def table_scale(self):
        return self.mscale(1.0)


class HalvesRotated(Reference):
    def rotate(self, vectors, position):
        half = vectors.shape[-1] // 2
        order = np.arange(2 * half).reshape(2, half).T.ravel()  # 0, h, 1, h + 1, ...
        turned = super().rotate(vectors[..., order], position)
        return turned[..., np.argsort(order)]


class SeesTheNext(Reference):
    def visible(self, position):
        return position + 2


class MissesItself(Reference):
    def visible(self, position):
        return max(position, 1)


class EpsSwapped(Reference):
    def latent_eps(self):
        return self.text.rms_norm_eps


class NotStretched(Reference):
    def inv_freq(self):
        dim = self.text.qk_rope_head_dim
        return np.array([self.text.rope_theta ** (-2 * i / dim) for i in range(dim // 2)])


class BiasWeighs(Reference):
    def weighing(self, scores, selection):
        return selection


def small_latents(tensors: Tensors) -> None:
    """Projections so small that the norms' eps matters."""
    for name in tensors:
        if "q_a_proj" in name or "kv_a_proj" in name:
            exponent = np.uint16(10 << 7)  # bf16 bits: divides by 2^10
            tensors[name] = np.where(tensors[name] & 0x7F80, tensors[name] - exponent, 0).astype(
                np.uint16
            )


def attend_excess(kind: type[Reference], tensors: Tensors, start: int = 40) -> float:
    """Distance of the kernels' attention from `kind`'s, in units of the true bound."""
    x = stream(SMALL, TOKENS)
    backbone = backbone_of(SMALL, tensors)
    backbone.attend(0, stream(SMALL, start, seed=2), 0)
    computed = backbone.attend(0, x, start)
    rows = cached_rows(backbone, 0, start + TOKENS)
    exact = x.astype(np.float64)
    bound = bounds_of(SMALL, tensors).attend(0, Near.exact(x), start, rows)
    faulty = reference_of(SMALL, tensors, kind).attend(0, exact, start, rows)
    return excess(computed, Near(faulty, bound.error))


def row_excess(kind: type[Reference], tensors: Tensors) -> float:
    """The same for the cache rows."""
    x = stream(SMALL, TOKENS)
    backbone = backbone_of(SMALL, tensors)
    backbone.attend(0, x, 70)
    bound = bounds_of(SMALL, tensors).latents(0, Near.exact(x), 70)
    faulty = reference_of(SMALL, tensors, kind).latents(0, x.astype(np.float64), 70)
    return excess(cached_rows(backbone, 0, 70 + TOKENS)[70:], Near(faulty, bound.error))


@pytest.mark.parametrize(
    "kind", [ScaleWithoutYarn, TablesScaledToo, HalvesRotated, SeesTheNext, MissesItself]
)
def test_attend_sees_a_fault(kind):
    assert attend_excess(kind, random_tensors(SMALL)) > 3


@pytest.mark.parametrize("kind", [TablesScaledToo, HalvesRotated, NotStretched])
def test_the_cache_row_sees_a_fault(kind):
    assert row_excess(kind, random_tensors(SMALL)) > 3


@pytest.mark.parametrize("excess_of", [attend_excess, row_excess])
def test_eps_of_the_latent_norms_matters(excess_of):
    tensors = random_tensors(SMALL)
    small_latents(tensors)
    assert excess_of(Reference, tensors) < 1
    assert excess_of(EpsSwapped, tensors) > 3


def test_route_sees_a_bias_that_weighs():
    tensors, x = random_tensors(SMALL), stream(SMALL, TOKENS)
    bound = bounds_of(SMALL, tensors).routing_weights(1, Near.exact(x))
    faulty = reference_of(SMALL, tensors, BiasWeighs).route(1, x.astype(np.float64)).weights
    computed = backbone_of(SMALL, tensors).route(1, x).weights
    assert excess(computed, Near(faulty, bound.error)) > 3


def test_shared_sees_a_scale():
    tensors, x = random_tensors(SMALL), stream(SMALL, TOKENS)
    backbone = backbone_of(SMALL, tensors)
    routing = backbone.route(1, x)
    near = bounds_of(SMALL, tensors).swiglu(
        Near.exact(routing.hidden), "model.layers.1.mlp.shared_experts"
    )
    scaled = Near(near.value * SMALL.routed_scaling_factor, near.error)
    assert excess(backbone.shared(1, routing), scaled) > 3


def test_the_softmax_and_the_router_are_not_flat():
    """Otherwise the faults above would be invisible."""
    reference = reference_of(SMALL, random_tensors(SMALL))
    x = stream(SMALL, TOKENS).astype(np.float64)
    rows = reference.latents(0, x, 0)
    q = reference.queries(0, x, 0)[-1, 0]
    weights = np.exp(reference.softmax_scale() * (rows[:, 32:] @ q[16:]))
    assert weights.max() > 1.2 * weights.min()
    scores = reference.route(1, x).scores
    assert scores.max() > 0.9
    assert scores.min() < 0.1
    assert math.isclose(reference.softmax_scale() / 24**-0.5, 1.41588831**2, rel_tol=1e-6)
