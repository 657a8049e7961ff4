"""Many tokens: tiles of pairs that want the same record, on the tensor cores, int8 and int16.

    gate_up   program (ROWS intermediate rows, tile ...): h of PAIRS pairs, encoded as bytes
    down      program (ROWS output rows, tile ...): their outputs

Pairs are sorted by slot; a tile is up to PAIRS of one slot (grouping.py). How many tiles there are
is known on the device alone, so that a program takes every num_programs(1)-th tile of the table.

A quantisation group of 32 inputs is one tensor-core product, [PAIRS, 32] x [32, ROWS], exact in
int32; its epilogue is four float32 operations for 32 multiply-adds. For int8 the sum begins at the
bits of 1.5 * 2^23 less 8 * sum(codes): read as float32, less 1.5 * 2^23, the result is the dot
product without a conversion, of which a GPU does one in the time of eight additions. |dot| is below
32 * 8 * 127 < 2^22, so this is exact. Nibbles are expanded once for PAIRS rows.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN201, ANN202, N803, N806 (Triton compiles these; constants are its capitals)

import triton
import triton.language as tl

from hybrid.gpu_experts.kernels.numerics import ROUND, ROUND_BITS, silu, store_encoded

GROUP_WORDS = tl.constexpr(72)  # record.STRIDE / 4


@triton.jit
def _weights(words, halves, block, lane, group):
    """One group of some rows: nibbles int8 [32, rows] and scales f32 [rows]."""
    rows: tl.constexpr = block.shape[0]
    line = tl.arange(0, 4)
    word = tl.load(words + (block + lane + group * GROUP_WORDS)[:, None] + line[None, :] * 16)
    index = tl.arange(0, 8)  # of an input in its line: bytes of low nibbles, bytes of high ones
    shift = index % 4 * 8 + index // 4 * 4
    nibbles = ((word[:, :, None] >> shift[None, None, :]) & 15).to(tl.int8)
    half = tl.load(halves + (block * 2 + lane + (group * 2 * GROUP_WORDS + 128)))
    scale = (half.to(tl.int32) << 16).to(tl.float32, bitcast=True)  # bf16
    return tl.trans(tl.reshape(nibbles, (rows, 32))), scale


@triton.jit
def _dots(first, second, nibbles, offset, PLANES: tl.constexpr):
    """f32 [pairs, rows]: dot products of codes int8 [pairs, 32] and nibbles - 8, exact."""
    pairs: tl.constexpr = first.shape[0]
    rows: tl.constexpr = nibbles.shape[1]
    if PLANES == 1:
        begin = tl.broadcast_to((-offset + ROUND_BITS)[:, None], (pairs, rows))
        dot = tl.dot(first, nibbles, acc=begin, out_dtype=tl.int32)
        return dot.to(tl.float32, bitcast=True) - ROUND
    dot = tl.dot(first, nibbles, out_dtype=tl.int32) * 256
    dot += tl.dot(second, nibbles, out_dtype=tl.int32)
    return (dot - offset[:, None]).to(tl.float32)


@triton.jit
def _codes(codes, row, live, group, GROUPS: tl.constexpr, PLANES: tl.constexpr):
    """One group of some encoded rows: both planes int8 [pairs, 32]; int8 has one, twice."""
    at = codes + (row * (PLANES * GROUPS * 32))[:, None] + (group * 32 + tl.arange(0, 32))[None, :]
    first = tl.load(at, mask=live[:, None], other=0)
    if PLANES == 1:
        return first, first
    return first, tl.load(at + GROUPS * 32, mask=live[:, None], other=0)


@triton.jit
def _tile(slots, firsts, counts, tile, PAIRS: tl.constexpr):
    """(slot int64, places int64 [PAIRS] among the sorted pairs, which of them are of the tile)."""
    index = tl.arange(0, PAIRS)
    slot = tl.load(slots + tile).to(tl.int64)
    return slot, tl.load(firsts + tile).to(tl.int64) + index, index < tl.load(counts + tile)


@triton.jit
def gate_up(
    words,  # int32 [count, RECORD]
    halves,  # int16, the same
    slots,  # int32 [tiles]
    firsts,  # int32 [tiles]: place of the first pair
    counts,  # int32 [tiles]
    tiles,  # int32 [1]: how many there are
    order,  # int64 [pairs]: which pair is at a place
    codes,  # int8, by token
    scales,
    offsets,
    h_codes,  # int8, by place
    h_scales,
    h_offsets,
    k,
    HIDDEN: tl.constexpr,
    INTERMEDIATE: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
    PLANES: tl.constexpr,
):
    """h of each pair of a tile, ROWS intermediate rows of it."""
    GROUPS: tl.constexpr = HIDDEN // 32
    BLOCK: tl.constexpr = GROUPS * GROUP_WORDS
    RECORD: tl.constexpr = 3 * INTERMEDIATE * HIDDEN // 512 * GROUP_WORDS
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    block, lane = row // 16 * 2 * BLOCK, row % 16  # gate's, up's alternate
    for tile in range(tl.program_id(1), tl.load(tiles), tl.num_programs(1)):
        slot, place, live = _tile(slots, firsts, counts, tile, PAIRS)
        token = tl.load(order + place, mask=live, other=0) // k
        at = token * GROUPS
        record, scales_of = words + slot * RECORD, halves + slot * (2 * RECORD)
        gate = tl.zeros((PAIRS, ROWS), tl.float32)
        up = tl.zeros((PAIRS, ROWS), tl.float32)
        for group in range(GROUPS):
            first, second = _codes(codes, token, live, group, GROUPS, PLANES)
            scale = tl.load(scales + at + group, mask=live, other=0.0)[:, None]
            offset = tl.load(offsets + at + group, mask=live, other=0)
            nibbles, weight = _weights(record, scales_of, block, lane, group)
            gate += _dots(first, second, nibbles, offset, PLANES) * (weight[None, :] * scale)
            nibbles, weight = _weights(record, scales_of, block + BLOCK, lane, group)
            up += _dots(first, second, nibbles, offset, PLANES) * (weight[None, :] * scale)
        h = tl.reshape(silu(gate) * up, (PAIRS * (ROWS // 32), 32))
        index = tl.arange(0, PAIRS * (ROWS // 32))
        group_of = tl.program_id(0) * (ROWS // 32) + index % (ROWS // 32)
        pair = index // (ROWS // 32)
        store_encoded(
            h_codes,
            h_scales,
            h_offsets,
            h,
            tl.load(firsts + tile).to(tl.int64) + pair,
            group_of,
            pair < tl.load(counts + tile),
            INTERMEDIATE // 32,
            PLANES,
            False,
        )


@triton.jit
def down(
    words,
    halves,
    slots,
    firsts,
    counts,
    tiles,
    order,
    codes,  # int8, by place
    scales,
    offsets,
    outputs,  # f32 [pairs, HIDDEN]
    HIDDEN: tl.constexpr,
    INTERMEDIATE: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
    PLANES: tl.constexpr,
):
    """What the experts say about each pair of a tile, ROWS columns of it."""
    GROUPS: tl.constexpr = INTERMEDIATE // 32
    BLOCK: tl.constexpr = GROUPS * GROUP_WORDS
    FIRST: tl.constexpr = 2 * INTERMEDIATE * HIDDEN // 512 * GROUP_WORDS
    RECORD: tl.constexpr = 3 * INTERMEDIATE * HIDDEN // 512 * GROUP_WORDS
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    block, lane = row // 16 * BLOCK, row % 16
    for tile in range(tl.program_id(1), tl.load(tiles), tl.num_programs(1)):
        slot, place, live = _tile(slots, firsts, counts, tile, PAIRS)
        at = place * GROUPS
        record = words + (slot * RECORD + FIRST)
        scales_of = halves + (slot * RECORD + FIRST) * 2
        total = tl.zeros((PAIRS, ROWS), tl.float32)
        for group in range(GROUPS):
            first, second = _codes(codes, place, live, group, GROUPS, PLANES)
            scale = tl.load(scales + at + group, mask=live, other=0.0)[:, None]
            offset = tl.load(offsets + at + group, mask=live, other=0)
            nibbles, weight = _weights(record, scales_of, block, lane, group)
            total += _dots(first, second, nibbles, offset, PLANES) * (weight[None, :] * scale)
        pair = tl.load(order + place, mask=live, other=0)
        tl.store(outputs + (pair * HIDDEN)[:, None] + row[None, :], total, mask=live[:, None])
