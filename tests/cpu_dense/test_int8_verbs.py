"""The verbs with int8 weights: what the reference computes from the values the codes stand for.

Beside rounding errors nothing may differ, so the bounds of bf16 apply unchanged: a group's sum
and its scale make n / 32 roundings more than the n of `bounds.product`, within their room. Which
matrices are coded, and along which inputs, is part of what is compared.
"""

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
    stream,
    widened,
)
from tests.reference.backbone import Reference
from tests.reference.int8_weights import decoded

TOKENS = 9
EXACT = ("norm.weight", "bias", "embed_tokens.weight", ".gate.weight")
SOME_SHAPES = pytest.mark.parametrize("name", ["small", "odd", "eight heads"])


def int8_bounds(text: TextConfig, tensors: Tensors, turned: bool = True) -> Bounds:
    """Bounds around the reference on decoded weights; W_UK is coded as it is used: transposed."""
    values = {}
    for name, stored in tensors.items():
        exact = widened(stored)
        if name.endswith(EXACT):
            values[name] = exact
        elif "kv_b_proj" in name and turned:
            values[name] = _decoded_kv_b(text, exact)
        else:
            values[name] = decoded(exact)
    return Bounds(Reference(text, values))


def _decoded_kv_b(text: TextConfig, kv_b: np.ndarray) -> np.ndarray:
    heads = kv_b.reshape(text.num_attention_heads, -1, text.kv_lora_rank).copy()
    for head in heads:
        nope = text.qk_nope_head_dim
        head[:nope] = decoded(head[:nope].T).T
        head[nope:] = decoded(head[nope:])
    return heads.reshape(kv_b.shape)


def attended(text: TextConfig, tensors: Tensors, bounds: Bounds) -> float:
    """Distance of the kernels' attention from `bounds`, in units of the bound."""
    x = stream(text, TOKENS)
    backbone = backbone_of(text, tensors, weights="int8")
    backbone.attend(0, stream(text, 70, seed=2), 0)
    computed = backbone.attend(0, x, 70)
    rows = cached_rows(backbone, 0, 70 + TOKENS)
    return excess(computed, bounds.attend(0, Near.exact(x), 70, rows))


@SOME_SHAPES
def test_attend(name):
    text, tensors = SHAPES[name], random_tensors(SHAPES[name])
    assert attended(text, tensors, int8_bounds(text, tensors)) < 1


def test_attend_sees_other_weights():
    tensors = random_tensors(SMALL)
    assert attended(SMALL, tensors, int8_bounds(SMALL, tensors, turned=False)) > 3
    exact = {name: widened(values) for name, values in tensors.items()}
    assert attended(SMALL, tensors, Bounds(Reference(SMALL, exact))) > 3


@SOME_SHAPES
def test_the_other_verbs(name):
    text, tensors = SHAPES[name], random_tensors(SHAPES[name])
    x, bounds = stream(text, TOKENS), int8_bounds(text, tensors)
    backbone = backbone_of(text, tensors, weights="int8")
    near = Near.exact(x)
    assert np.array_equal(
        backbone.embed([0, 7]), widened(tensors["model.embed_tokens.weight"])[[0, 7]]
    )
    assert excess(backbone.dense(0, x), bounds.dense(0, near)) < 1
    assert excess(backbone.logits(x), bounds.logits(near)) < 1
    routing = backbone.route(1, x)
    shared = bounds.swiglu(Near.exact(routing.hidden), "model.layers.1.mlp.shared_experts")
    assert excess(backbone.shared(1, routing), shared) < 1


def test_the_router_is_exact():
    tensors, x = random_tensors(SMALL), stream(SMALL, TOKENS)
    ours, theirs = (backbone_of(SMALL, tensors, weights=w).route(1, x) for w in ("int8", "bf16"))
    for field in ("hidden", "expert_ids", "weights"):
        assert np.array_equal(getattr(ours, field), getattr(theirs, field))


def test_logits_see_weights_that_are_not_coded():
    tensors, x = random_tensors(SMALL), stream(SMALL, TOKENS)
    bounds = int8_bounds(SMALL, tensors)
    plain = backbone_of(SMALL, tensors).logits(x)
    assert excess(plain, bounds.logits(Near.exact(x))) > 3
