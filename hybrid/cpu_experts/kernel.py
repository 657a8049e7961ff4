"""The shape of the computation, written once; an instruction set brings only its `rows16`.

    ENCODE    unit = token                     x row -> encoded activation row, and into panels
    GATE_UP   unit = expert x 32 rows          gate, up of these rows -> silu(gate) * up -> encoded
    DOWN      unit = expert x up to 256 rows   encoded row -> o[slot], columns of the stripe
    COMBINE   unit = token x 1024 columns      out = sum, in slot order, of weight * o[slot]

32 intermediate rows are one quantisation group of h, so a GATE_UP unit finishes its group without
asking another unit. Units of GATE_UP and DOWN are numbered node by node (shards.py), so that each
node's threads read their own memory. `rows16`, called by address, is what rows/ describes; each
result depends on that activation row and that block alone.
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN201, ANN202 (numba infers the types)

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray

from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.job import (
    DOWN,
    ENCODE,
    GATE_UP,
    SHARD_BYTES,
    WORKER_BYTES,
    shard_at,
)
from hybrid.cpu_experts.native import call_rows16, load_f32, load_i32, load_i64, store_i64
from hybrid.cpu_experts.numerics import bias_codes, swiglu_group
from hybrid.cpu_experts.record import ROWS, STRIDE
from hybrid.cpu_experts.rows.kernel import MAX_ROWS, WIDE
from hybrid.cpu_experts.simd import add, load_f32x8, mul, splat_f32, store_f32x8

DOWN_BLOCKS = 16  # row blocks of one DOWN unit
COLUMNS = 1024  # columns of one COMBINE unit
BLOCK_BYTES = ROWS * 4  # of one activation row's results
ZERO = np.float32(0.0)


@inlined
def shared_units(job, phase):
    """Number of units of a phase that belongs to no node: ENCODE or COMBINE."""
    return job.tokens if phase == ENCODE else job.tokens * _column_units(job)


@inlined
def bound_units(job, phase):
    """Set `bounds` for GATE_UP or DOWN: node k has units bounds[k] ... bounds[k + 1] - 1."""
    total = 0
    store_i64(job.bounds, 0, total)
    for node in range(job.nodes):
        shard = carray(shard_at(job.shards + node * SHARD_BYTES), 1)[0]
        if phase == GATE_UP:
            total += job.segments * shard.gates
        else:
            first, last = _stripe_blocks(job, shard)
            total += job.segments * _down_units(first, last)
        store_i64(job.bounds, node + 1, total)
    return total


@inlined
def _node_of(job, unit):
    node = 0
    while unit >= load_i64(job.bounds, node + 1):
        node += 1
    return node


@inlined
def _stripe_blocks(job, shard):
    """The shard's row blocks of the output that lie in the stripe."""
    first = max(shard.down, job.column // ROWS)
    last = min(shard.down + shard.downs, (job.column + job.columns) // ROWS)
    return first, max(first, last)


@inlined
def _down_units(first, last):
    return (last - first + DOWN_BLOCKS - 1) // DOWN_BLOCKS


@inlined
def _column_units(job):
    return (job.columns + COLUMNS - 1) // COLUMNS


@inlined
def _panel(job, segment):
    """1 if a segment is a panel (job.py)."""
    pairs = load_i32(job.first, segment + 1) - load_i32(job.first, segment)
    return 1 if pairs >= job.panels_from else 0


@inlined
def _at(job, base, stride, segment, pair):
    """Where the first group of a pair lies in x_panels or h_rows, and the distance of the next."""
    first = load_i32(job.first, segment)
    if _panel(job, segment):
        pairs = load_i32(job.first, segment + 1) - first
        return base + first * stride + (pair - first) * job.group_bytes, pairs * job.group_bytes
    return base + pair * stride, job.group_bytes


@inlined
def _encode_row(encode, planes, job, token):
    if not _is_wanted(job, token):
        return
    source = job.x + token * job.hidden * 4
    row = job.x_rows + token * job.x_stride
    for group in range(job.hidden // 32):
        encode(source + group * 128, row + group * job.group_bytes)
    if job.panels:
        for slot in range(token * job.k, (token + 1) * job.k):
            pair = load_i32(job.place, slot)
            if pair >= 0 and _panel(job, load_i32(job.segment_of, pair)):
                _spread_row(planes, job, row, pair)


@inlined
def _is_wanted(job, token):
    """Whether one of the token's experts is computed by this call."""
    wanted = False
    for slot in range(token * job.k, (token + 1) * job.k):
        wanted |= load_i32(job.place, slot) >= 0
    return wanted


@inlined
def _spread_row(planes, job, row, pair):
    """Copy an encoded row into its place in a panel."""
    at, step = _at(job, job.x_panels, job.x_stride, load_i32(job.segment_of, pair), pair)
    for group in range(job.hidden // 32):
        source, target = row + group * job.group_bytes, at + group * step
        for word in range(job.group_bytes // 8):
            store_i64(target, word, load_i64(source, word))
        if job.biased:
            bias_codes(target, planes)


@inlined
def _calls(pairs):
    """Calls of at most MAX_ROWS pairs."""
    return (pairs + MAX_ROWS - 1) // MAX_ROWS


@inlined
def _part(first, end, call):
    """First pair and number of pairs of one of the calls: as even as can be, none nearly empty."""
    calls = _calls(end - first)
    pair = first + (end - first) * call // calls
    return pair, first + (end - first) * (call + 1) // calls - pair


@inlined
def _gate_up(encode, planes, job, unit, worker):
    node, groups = _node_of(job, unit), job.hidden // 32
    shard = carray(shard_at(job.shards + node * SHARD_BYTES), 1)[0]
    unit -= load_i64(job.bounds, node)
    segment, at = unit // shard.gates, unit % shard.gates
    h_group = shard.gate + at
    block = shard.records + load_i32(job.record, segment) * shard.record_bytes
    block += at * WIDE * groups * STRIDE  # gate, up, gate, up
    tile = job.tiles + worker * WORKER_BYTES
    first, end = load_i32(job.first, segment), load_i32(job.first, segment + 1)
    panel = _panel(job, segment)
    acts, stride, step = job.x_rows, job.x_stride, job.group_bytes
    if panel:
        acts, step = _at(job, job.x_panels, job.x_stride, segment, first)
        stride = job.group_bytes
    for call in range(_calls(end - first)):
        pair, n = _part(first, end, call)
        rows = job.itself + (pair - first) * 4 if panel else job.token_of + pair * 4
        call_rows16(job.rows16, block, WIDE, groups, acts, stride, step, rows, n, tile)
        for i in range(n):
            h, h_step = _at(job, job.h_rows, job.h_stride, segment, pair + i)
            h += h_group * h_step
            swiglu_group(tile + i * WIDE * BLOCK_BYTES)
            encode(tile + i * WIDE * BLOCK_BYTES, h)
            if panel and job.biased:
                bias_codes(h, planes)


@inlined
def _down(job, unit, worker):
    node, groups = _node_of(job, unit), job.intermediate // 32
    shard = carray(shard_at(job.shards + node * SHARD_BYTES), 1)[0]
    first, last = _stripe_blocks(job, shard)
    unit -= load_i64(job.bounds, node)
    segment, chunk = unit // _down_units(first, last), unit % _down_units(first, last)
    down = shard.records + load_i32(job.record, segment) * shard.record_bytes
    down += shard.gates * WIDE * (job.hidden // 32) * STRIDE
    start, end = load_i32(job.first, segment), load_i32(job.first, segment + 1)
    first += chunk * DOWN_BLOCKS
    last = min(first + DOWN_BLOCKS, last)
    tile = job.tiles + worker * WORKER_BYTES
    acts, step = _at(job, job.h_rows, job.h_stride, segment, start)
    stride = job.group_bytes if _panel(job, segment) else job.h_stride
    for index in range(first, last, WIDE):
        blocks = min(WIDE, last - index)
        block = down + (index - shard.down) * groups * STRIDE
        for call in range(_calls(end - start)):
            pair, n = _part(start, end, call)
            rows = job.itself + (pair - start) * 4
            call_rows16(job.rows16, block, blocks, groups, acts, stride, step, rows, n, tile)
            _copy_out(job, tile, pair, n, index * ROWS - job.column, blocks)


@inlined
def _copy_out(job, tile, pair, n, column, blocks):
    """Totals from a tile to o. They grow in the tile because the rows of o collide in L1."""
    for i in range(n):
        source = tile + i * blocks * BLOCK_BYTES
        target = job.o + (load_i32(job.slot_of, pair + i) * job.stripe + column) * 4
        for at in range(0, blocks * BLOCK_BYTES, 32):
            store_f32x8(target, at, load_f32x8(source, at))


@inlined
def _combine(job, unit):
    token, column = unit // _column_units(job), unit % _column_units(job) * COLUMNS
    width = min(COLUMNS, job.columns - column)
    out = job.out + (token * job.hidden + job.column + column) * 4
    for at in range(0, width * 4, 32):
        total = splat_f32(ZERO)
        for slot in range(token * job.k, (token + 1) * job.k):
            if load_i32(job.ids, slot) >= 0:
                o = load_f32x8(job.o, (slot * job.stripe + column) * 4 + at)
                total = add(total, mul(splat_f32(load_f32(job.weights, slot)), o))
        store_f32x8(out, at, total)


def build(encode: Any, planes: int) -> Callable[..., None]:
    """Return the body of `void kernel(job, unit, worker)` for one activation mode."""

    def kernel(pointer, unit, worker):
        job = carray(pointer, 1)[0]
        if job.phase == ENCODE:
            _encode_row(encode, planes, job, unit)
        elif job.phase == GATE_UP:
            _gate_up(encode, planes, job, unit, worker)
        elif job.phase == DOWN:
            _down(job, unit, worker)
        else:
            _combine(job, unit)

    return kernel
