"""One block of an online softmax (Milakov & Gimelshein, arXiv 1805.02867), in eight fixed lanes.

A row's state is its largest score so far (in all lanes) and eight partial sums of exponentials.
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201, ANN202 (compiled code: numba infers the types)

import numpy as np

from hybrid.cpu_dense.frame import stack_line
from hybrid.cpu_dense.norm import lane_total
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import load_f32, store_f32
from hybrid.cpu_experts.numerics import exp
from hybrid.cpu_experts.simd import (
    add,
    at_least,
    div,
    load_f32x8,
    mul,
    splat_f32,
    store_f32x8,
    sub,
)

BLOCK = 64  # positions of a block; blocks start at multiples of it, whatever the chunk
STATE_BYTES = 64  # largest [8] | sums [8], float32
LOWEST = np.float32(-87.0)  # exp below it is under 2e-38: nothing beside a sum of at least 1


@inlined
def begin_row(state):
    """No score seen yet."""
    store_f32x8(state, 0, splat_f32(np.float32(-np.inf)))
    store_f32x8(state, 32, splat_f32(np.float32(0.0)))


@inlined
def weigh_block(scores, count, scale, state, mixed, mixed_bytes):
    """Turn `count` of BLOCK scores into weights; rescale the row mixed so far."""
    for index in range(count, BLOCK):
        store_f32(scores, index, np.float32(-np.inf))
    largest = splat_f32(np.float32(-np.inf))
    for at in range(0, BLOCK * 4, 32):
        scaled = mul(load_f32x8(scores, at), splat_f32(scale))
        store_f32x8(scores, at, scaled)
        largest = at_least(scaled, largest)
    before = load_f32x8(state, 0)
    largest = at_least(before, splat_f32(_largest_lane(largest)))
    factor = exp(at_least(sub(before, largest), splat_f32(LOWEST)))
    sums = mul(load_f32x8(state, 32), factor)
    for at in range(0, BLOCK * 4, 32):
        power = exp(at_least(sub(load_f32x8(scores, at), largest), splat_f32(LOWEST)))
        store_f32x8(scores, at, power)
        sums = add(sums, power)
    store_f32x8(state, 0, largest)
    store_f32x8(state, 32, sums)
    for at in range(0, mixed_bytes, 32):
        store_f32x8(mixed, at, mul(load_f32x8(mixed, at), factor))


@inlined
def finish_row(state, mixed, mixed_bytes):
    """Divide the mixed row by the sum of all weights."""
    total = splat_f32(lane_total(load_f32x8(state, 32)))
    for at in range(0, mixed_bytes, 32):
        store_f32x8(mixed, at, div(load_f32x8(mixed, at), total))


@inlined
def _largest_lane(vector):
    lanes = stack_line()
    store_f32x8(lanes, 0, vector)
    largest = load_f32(lanes, 0)
    for lane in range(1, 8):
        largest = max(largest, load_f32(lanes, lane))
    return largest
