"""Which experts a token goes to: sigmoid scores, a bias that selects but never weighs (spec §3.4).

The k largest of sigmoid(logit) + bias, in descending order; equal scores go to the lower index, a
NaN is below everything. Ids are therefore always k different experts, whatever the input.
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201, ANN202 (compiled code: numba infers the types)

import numpy as np
from numba import carray

from hybrid.cpu_dense.norm import TOKENS
from hybrid.cpu_dense.records import record
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import load_f32, load_i32, store_f32, store_i32
from hybrid.cpu_experts.numerics import exp
from hybrid.cpu_experts.pool import parallel
from hybrid.cpu_experts.simd import (
    add,
    at_least,
    at_most,
    div,
    load_f32x8,
    splat_f32,
    store_f32x8,
    sub,
)

SELECT, select_at = record(
    "unit"
    " logits row_bytes"  # [tokens] rows: experts padded to 32 | chosen scores [k], float32
    " bias"  # [experts] float32
    " experts k normalised"
    " ids weights"  # [tokens, k] int32 and float32
    " tokens",
    "factor",
)


@inlined
def run_select(state, at):
    """Run a filled record on the pool."""
    job = carray(select_at(at), 1)[0]
    parallel(state, job.unit, at, (job.tokens + TOKENS - 1) // TOKENS)


def select_unit(at, unit, worker):
    """Tokens unit * TOKENS …"""
    job = carray(select_at(at), 1)[0]
    for token in range(unit * TOKENS, min((unit + 1) * TOKENS, job.tokens)):
        scores = job.logits + token * job.row_bytes
        ids, weights = job.ids + token * job.k * 4, job.weights + token * job.k * 4
        padded = (job.experts + 31) // 32 * 32
        _sigmoid(scores, padded)
        _largest(scores, job.bias, job.experts, job.k, scores + padded * 4, ids)
        _weigh(scores, ids, job.k, job.normalised, job.factor, weights)


@inlined
def _sigmoid(scores, count):
    """Replace logits by 1 / (1 + e^-logit)."""
    one, limit = splat_f32(np.float32(1.0)), np.float32(87.0)
    for at in range(0, count * 4, 32):
        logit = at_most(at_least(load_f32x8(scores, at), splat_f32(-limit)), splat_f32(limit))
        power = exp(sub(splat_f32(np.float32(0.0)), logit))
        store_f32x8(scores, at, div(one, add(one, power)))


@inlined
def _largest(scores, bias, experts, k, chosen, ids):
    """Insert each expert into the sorted list of the k best so far."""
    held = 0
    for expert in range(experts):
        score = np.float32(load_f32(scores, expert) + load_f32(bias, expert))
        if score != score:
            score = np.float32(-np.inf)
        if held < k or score > load_f32(chosen, k - 1):
            slot = min(held, k - 1)
            while slot > 0 and score > load_f32(chosen, slot - 1):
                store_f32(chosen, slot, load_f32(chosen, slot - 1))
                store_i32(ids, slot, load_i32(ids, slot - 1))
                slot -= 1
            store_f32(chosen, slot, score)
            store_i32(ids, slot, np.int32(expert))
            held = min(held + 1, k)


@inlined
def _weigh(scores, ids, k, normalised, factor, weights):
    """Un-biased scores of the chosen, divided by their sum if asked, times the model's factor."""
    total = np.float32(0.0)
    for slot in range(k):
        total = np.float32(total + load_f32(scores, load_i32(ids, slot)))
    total = np.float32(total + np.float32(1e-20))
    for slot in range(k):
        weight = load_f32(scores, load_i32(ids, slot))
        if normalised != 0:
            weight = np.float32(weight / total)
        store_f32(weights, slot, np.float32(weight * factor))
