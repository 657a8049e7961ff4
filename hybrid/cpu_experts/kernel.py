"""The shape of the computation, written once; an instruction set brings only its `rows16`.

    ENCODE    unit = token                    x row -> encoded activation row
    GATE_UP   unit = expert x 32 rows         gate, up of these rows -> silu(gate) * up -> encoded
    DOWN      unit = expert x up to 64 rows   encoded row -> o[pair]
    COMBINE   unit = token x 2048 columns     out = sum, in slot order, of weight * o[pair]

32 intermediate rows are one quantisation group of h, so a GATE_UP unit finishes its group without
asking another unit. `rows16(block, groups, acts, stride, rows, n, out, out_stride)`, called by
address, computes the 16 output rows of one weight block for the n activation rows whose numbers
`rows` lists; each result depends on that activation row and that block alone.
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN201, ANN202 (numba infers the types)

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray

from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.job import DOWN, ENCODE, GATE_UP, TOKENS, WORKER_BYTES
from hybrid.cpu_experts.native import call_rows16, load_f32, load_i32
from hybrid.cpu_experts.numerics import swiglu_group
from hybrid.cpu_experts.record import GROUP_BYTES, SCALE_BYTES
from hybrid.cpu_experts.simd import add, load_f32x8, mul, splat_f32, store_f32x8

DOWN_BLOCKS = 4  # row blocks of one DOWN unit
COLUMNS = 2048  # columns of one COMBINE unit
TILE_STRIDE = 32 * 4  # bytes between the tokens of a worker's tile
BLOCK_BYTES_PER_GROUP = GROUP_BYTES + SCALE_BYTES
ZERO = np.float32(0.0)


@inlined
def units_of(job, phase):
    """Number of units of a phase."""
    if phase == ENCODE:
        return job.tokens
    if phase == GATE_UP:
        return job.segments * (job.intermediate // 32)
    if phase == DOWN:
        return job.segments * _down_units(job)
    return job.tokens * _column_units(job)


@inlined
def _down_units(job):
    return (job.hidden // 16 + DOWN_BLOCKS - 1) // DOWN_BLOCKS


@inlined
def _column_units(job):
    return (job.hidden + COLUMNS - 1) // COLUMNS


@inlined
def _encode_row(encode, job, token):
    source = job.x + token * job.hidden * 4
    row = job.x_rows + token * (job.hidden // 32) * job.group_bytes
    for group in range(job.hidden // 32):
        encode(source + group * 128, row + group * job.group_bytes)


@inlined
def _gate_up(encode, job, unit, worker):
    groups, h_groups = job.hidden // 32, job.intermediate // 32
    segment, h_group = unit // h_groups, unit % h_groups
    block_bytes = groups * BLOCK_BYTES_PER_GROUP
    block = job.records + load_i32(job.expert, segment) * job.record_bytes
    block += h_group * 4 * block_bytes  # gate, up, gate, up
    gate = job.tiles + worker * WORKER_BYTES
    up = gate + WORKER_BYTES // 2
    acts, stride = job.x_rows, groups * job.group_bytes
    end = load_i32(job.first, segment + 1)
    for pair in range(load_i32(job.first, segment), end, TOKENS):
        n = min(TOKENS, end - pair)
        rows = job.token_of + pair * 4
        for quarter in range(4):
            tile = (up if quarter % 2 else gate) + quarter // 2 * 64
            at = block + quarter * block_bytes
            call_rows16(job.rows16, at, groups, acts, stride, rows, n, tile, TILE_STRIDE)
        for i in range(n):
            tile = gate + i * TILE_STRIDE
            swiglu_group(tile, up + i * TILE_STRIDE)
            encode(tile, job.h_rows + ((pair + i) * h_groups + h_group) * job.group_bytes)


@inlined
def _down(job, unit):
    groups = job.intermediate // 32
    segment, chunk = unit // _down_units(job), unit % _down_units(job)
    block_bytes = groups * BLOCK_BYTES_PER_GROUP
    gate_up_bytes = job.intermediate // 8 * (job.hidden // 32) * BLOCK_BYTES_PER_GROUP
    record = job.records + load_i32(job.expert, segment) * job.record_bytes
    acts, stride, out_stride = job.h_rows, groups * job.group_bytes, job.hidden * 4
    start, end = load_i32(job.first, segment), load_i32(job.first, segment + 1)
    last = min((chunk + 1) * DOWN_BLOCKS, job.hidden // 16)
    for index in range(chunk * DOWN_BLOCKS, last):
        block = record + gate_up_bytes + index * block_bytes
        for pair in range(start, end, TOKENS):
            n = min(TOKENS, end - pair)
            out = job.o + pair * out_stride + index * 64
            rows = job.itself + pair * 4
            call_rows16(job.rows16, block, groups, acts, stride, rows, n, out, out_stride)


@inlined
def _combine(job, unit):
    token, column = unit // _column_units(job), unit % _column_units(job) * COLUMNS
    width = min(COLUMNS, job.hidden - column)
    out = job.out + (token * job.hidden + column) * 4
    for at in range(0, width * 4, 32):
        total = splat_f32(ZERO)
        for slot in range(token * job.k, (token + 1) * job.k):
            pair = load_i32(job.place, slot)
            if pair >= 0:
                o = load_f32x8(job.o, (pair * job.hidden + column) * 4 + at)
                total = add(total, mul(splat_f32(load_f32(job.weights, slot)), o))
        store_f32x8(out, at, total)


def build(encode: Any) -> Callable[..., None]:
    """Return the body of `void kernel(job, unit, worker)` for one activation mode's `encode`."""

    def kernel(pointer, unit, worker):
        job = carray(pointer, 1)[0]
        if job.phase == ENCODE:
            _encode_row(encode, job, unit)
        elif job.phase == GATE_UP:
            _gate_up(encode, job, unit, worker)
        elif job.phase == DOWN:
            _down(job, unit)
        else:
            _combine(job, unit)

    return kernel
