"""`rows16` for AVX2: eight output rows per register, activations broadcast four bytes at a time.

int8: unsigned nibbles (0...15) times signed codes (+-127), neighbours added, as vpmaddubsw does: a
pair of products is at most 2 * 15 * 127 = 3,810, the eight pairs of a group 30,480 < 32,768, so
16-bit sums are exact and a group widens once. The nibbles' offset of 8 comes off as 8 sum(codes).
bf16: each nibble becomes a float32; inputs are added one at a time, in order.
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN202 (numba infers the types)

import numpy as np

from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import load_f32, load_i32, prefetch
from hybrid.cpu_experts.numerics import (
    BF16_GROUP_BYTES,
    INT8_GROUP_BYTES,
    OFFSET_AT,
    SCALE_AT,
)
from hybrid.cpu_experts.record import GROUP_BYTES, LINE_BYTES, SCALE_BYTES
from hybrid.cpu_experts.simd import (
    add,
    as_bytes,
    bit_and,
    load_bf16x8,
    load_i32x8,
    mul,
    multiply_add_bytes,
    multiply_add_words,
    shift_right,
    splat_f32,
    splat_i16,
    splat_i32,
    store_f32x8,
    sub,
    to_f32,
)

AHEAD = 2048  # bytes: one thread went from 63 to 83 % of the speed of a plain read (docs/log.md)
HALF = 32  # bytes of eight lanes; and of eight float32 results
ZERO = np.float32(0.0)
NIBBLE = np.int32(15)
NIBBLES = np.int32(0x0F0F0F0F)


@inlined
def _line(tile, line):
    return load_i32x8(tile, line * LINE_BYTES)


@inlined
def _prefetch_group(tile):
    """Four lines ahead of use: while a group is computed, too few loads wait for memory."""
    for line in range(4):
        prefetch(tile + line * LINE_BYTES)


@inlined
def _low(packed):
    return as_bytes(bit_and(packed, splat_i32(NIBBLES)))


@inlined
def _unpack(tile):
    """Eight rows of a group as bytes; element i holds inputs 4i ... 4i+3 of every row."""
    a, b, c, d = _line(tile, 0), _line(tile, 1), _line(tile, 2), _line(tile, 3)
    return (
        _low(a),
        _low(shift_right(a, 4)),
        _low(b),
        _low(shift_right(b, 4)),
        _low(c),
        _low(shift_right(c, 4)),
        _low(d),
        _low(shift_right(d, 4)),
    )


@inlined
def _products(nibbles, act, index):
    return multiply_add_bytes(nibbles, as_bytes(splat_i32(load_i32(act, index))))


@inlined
def _accumulate(acc, w, scale, act):
    """acc + float(dot) * (w_scale * x_scale) for eight rows and one token's group."""
    total = add(_products(w[0], act, 0), _products(w[1], act, 1))
    total = add(total, add(_products(w[2], act, 2), _products(w[3], act, 3)))
    more = add(_products(w[4], act, 4), _products(w[5], act, 5))
    more = add(more, add(_products(w[6], act, 6), _products(w[7], act, 7)))
    dot = multiply_add_words(add(total, more), splat_i16(np.int16(1)))
    dot = sub(dot, splat_i32(load_i32(act + OFFSET_AT, 0)))
    return add(acc, mul(to_f32(dot), mul(scale, splat_f32(load_f32(act + SCALE_AT, 0)))))


@inlined
def _one_int8(block, groups, act, out):
    scales = block + groups * GROUP_BYTES
    upper, lower = splat_f32(ZERO), splat_f32(ZERO)
    for group in range(groups):
        tile = block + group * GROUP_BYTES
        _prefetch_group(tile + AHEAD)
        scale = group * SCALE_BYTES
        x = act + group * INT8_GROUP_BYTES
        upper = _accumulate(upper, _unpack(tile), load_bf16x8(scales, scale), x)
        lower = _accumulate(lower, _unpack(tile + HALF), load_bf16x8(scales, scale + 16), x)
    store_f32x8(out, 0, upper)
    store_f32x8(out, HALF, lower)


@inlined
def _four_int8(block, groups, half, a, b, c, d):
    """Eight rows (half 0 or 1) for the activation rows at a, b, c, d."""
    scales = block + groups * GROUP_BYTES + half * 16
    sa, sb, sc, sd = splat_f32(ZERO), splat_f32(ZERO), splat_f32(ZERO), splat_f32(ZERO)
    for group in range(groups):
        tile = block + group * GROUP_BYTES
        _prefetch_group(tile + AHEAD)
        w = _unpack(tile + half * HALF)
        scale = load_bf16x8(scales, group * SCALE_BYTES)
        x = group * INT8_GROUP_BYTES
        sa = _accumulate(sa, w, scale, a + x)
        sb = _accumulate(sb, w, scale, b + x)
        sc = _accumulate(sc, w, scale, c + x)
        sd = _accumulate(sd, w, scale, d + x)
    return sa, sb, sc, sd


@inlined
def _weight(packed, shift):
    nibble = bit_and(shift_right(packed, shift), splat_i32(NIBBLE))
    return to_f32(sub(nibble, splat_i32(np.int32(8))))


@inlined
def _shift(index):
    """Where input `index` (0...7) of a line sits in its lane."""
    return (index % 4) * 8 + (index // 4) * 4


@inlined
def _one_bf16(block, groups, act, out):
    scales = block + groups * GROUP_BYTES
    upper, lower = splat_f32(ZERO), splat_f32(ZERO)
    for group in range(groups):
        tile, x = block + group * GROUP_BYTES, act + group * BF16_GROUP_BYTES
        su, sl = splat_f32(ZERO), splat_f32(ZERO)
        for line in range(4):
            pu, pl = _line(tile, line), _line(tile + HALF, line)
            for index in range(8):
                value = splat_f32(load_f32(x, line * 8 + index))
                su = add(su, mul(value, _weight(pu, _shift(index))))
                sl = add(sl, mul(value, _weight(pl, _shift(index))))
        upper = add(upper, mul(su, load_bf16x8(scales, group * SCALE_BYTES)))
        lower = add(lower, mul(sl, load_bf16x8(scales, group * SCALE_BYTES + 16)))
    store_f32x8(out, 0, upper)
    store_f32x8(out, HALF, lower)


@inlined
def _four_bf16(block, groups, half, a, b, c, d):
    scales = block + groups * GROUP_BYTES + half * 16
    sa, sb, sc, sd = splat_f32(ZERO), splat_f32(ZERO), splat_f32(ZERO), splat_f32(ZERO)
    for group in range(groups):
        tile, x = block + group * GROUP_BYTES + half * HALF, group * BF16_GROUP_BYTES
        ta, tb, tc, td = splat_f32(ZERO), splat_f32(ZERO), splat_f32(ZERO), splat_f32(ZERO)
        for line in range(4):
            packed = _line(tile, line)
            for index in range(8):
                w, at = _weight(packed, _shift(index)), line * 8 + index
                ta = add(ta, mul(splat_f32(load_f32(a + x, at)), w))
                tb = add(tb, mul(splat_f32(load_f32(b + x, at)), w))
                tc = add(tc, mul(splat_f32(load_f32(c + x, at)), w))
                td = add(td, mul(splat_f32(load_f32(d + x, at)), w))
        scale = load_bf16x8(scales, group * SCALE_BYTES)
        sa, sb = add(sa, mul(ta, scale)), add(sb, mul(tb, scale))
        sc, sd = add(sc, mul(tc, scale)), add(sd, mul(td, scale))
    return sa, sb, sc, sd


def _rows16(one, four):
    """Tokens in fours; one or two left over go alone, three as four with the last one twice."""

    def rows16(block, groups, acts, stride, rows, n, out, out_stride):
        i = 0
        while n - i > 2:
            j, k, m = i + 1, i + 2, min(i + 3, n - 1)
            a, b = acts + load_i32(rows, i) * stride, acts + load_i32(rows, j) * stride
            c, d = acts + load_i32(rows, k) * stride, acts + load_i32(rows, m) * stride
            for half in range(2):
                at = out + half * HALF
                sa, sb, sc, sd = four(block, groups, half, a, b, c, d)
                store_f32x8(at, i * out_stride, sa)
                store_f32x8(at, j * out_stride, sb)
                store_f32x8(at, k * out_stride, sc)
                store_f32x8(at, m * out_stride, sd)
            i += 4
        while i < n:
            one(block, groups, acts + load_i32(rows, i) * stride, out + i * out_stride)
            i += 1

    return rows16


rows16_int8 = _rows16(_one_int8, _four_int8)
rows16_bf16 = _rows16(_one_bf16, _four_bf16)
