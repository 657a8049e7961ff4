"""RMSNorm in float32: x / sqrt(mean(x^2) + eps) * weight (spec §3.1).

Squares are summed in 32 fixed lanes, whatever the block: a row's bits depend on the row alone.
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201 (compiled code: numba infers the types)

import numpy as np
from numba import carray

from hybrid.cpu_dense.frame import stack_line
from hybrid.cpu_dense.records import record
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import load_f32, store_f32
from hybrid.cpu_experts.pool import parallel
from hybrid.cpu_experts.simd import add, load_f32x8, mul, splat_f32, store_f32x8

TOKENS = 8  # of one unit
LANE_BYTES = 32  # eight float32

NORM, norm_at = record("unit x x_bytes weight size out out_bytes tokens", "eps")


@inlined
def run_norm(state, at):
    """Run a filled record on the pool."""
    job = carray(norm_at(at), 1)[0]
    parallel(state, job.unit, at, (job.tokens + TOKENS - 1) // TOKENS)


@inlined
def lane_total(vector):
    """Add up eight lanes, in order."""
    lanes = stack_line()
    store_f32x8(lanes, 0, vector)
    total = load_f32(lanes, 0)
    for lane in range(1, 8):
        total = np.float32(total + load_f32(lanes, lane))
    return total


@inlined
def normalise(x, weight, size, eps, out):
    """One row; `out` may be `x`. Vectors of eight, then single elements."""
    whole = size // 8 * LANE_BYTES
    sums_0 = sums_1 = sums_2 = sums_3 = splat_f32(np.float32(0.0))
    at = 0
    while at + 4 * LANE_BYTES <= whole:
        v_0, v_1 = load_f32x8(x, at), load_f32x8(x, at + 32)
        v_2, v_3 = load_f32x8(x, at + 64), load_f32x8(x, at + 96)
        sums_0, sums_1 = add(sums_0, mul(v_0, v_0)), add(sums_1, mul(v_1, v_1))
        sums_2, sums_3 = add(sums_2, mul(v_2, v_2)), add(sums_3, mul(v_3, v_3))
        at += 4 * LANE_BYTES
    while at < whole:
        v_0 = load_f32x8(x, at)
        sums_0 = add(sums_0, mul(v_0, v_0))
        at += LANE_BYTES
    total = lane_total(add(add(sums_0, sums_1), add(sums_2, sums_3)))
    for index in range(whole // 4, size):
        total = np.float32(total + load_f32(x, index) * load_f32(x, index))
    inverse = np.float32(1.0) / np.sqrt(np.float32(total / np.float32(size) + eps))
    for at in range(0, whole, LANE_BYTES):
        scaled = mul(load_f32x8(x, at), splat_f32(inverse))
        store_f32x8(out, at, mul(scaled, load_f32x8(weight, at)))
    for index in range(whole // 4, size):
        scaled = np.float32(load_f32(x, index) * inverse)
        store_f32(out, index, np.float32(scaled * load_f32(weight, index)))


def norm_unit(at, unit, worker):
    """Rows unit * TOKENS …"""
    job = carray(norm_at(at), 1)[0]
    for token in range(unit * TOKENS, min((unit + 1) * TOKENS, job.tokens)):
        row = job.x + token * job.x_bytes
        normalise(row, job.weight, job.size, job.eps, job.out + token * job.out_bytes)
