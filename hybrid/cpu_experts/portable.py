"""`rows16` in plain scalar code: runs everywhere, and is what the others are checked against."""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN202 (numba infers the types)

import numpy as np

from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import (
    float_of,
    load_f32,
    load_i8,
    load_i32,
    load_u8,
    load_u16,
    store_f32,
)
from hybrid.cpu_experts.numerics import BF16_GROUP_BYTES, INT8_GROUP_BYTES, SCALE_AT
from hybrid.cpu_experts.record import GROUP_BYTES, LINE_BYTES, ROWS

ZERO = np.float32(0.0)


@inlined
def _scale(block, groups, group, row):
    bits = load_u16(block + groups * GROUP_BYTES, group * ROWS + row)
    return float_of(np.uint32(np.uint32(bits) << np.uint32(16)))


@inlined
def _weight(tile, row, index):
    """The weight of input `index` (0...31), without its scale."""
    line, place = index // 8, index % 8
    byte = np.int32(load_u8(tile, line * LINE_BYTES + row * 4 + place % 4))
    return ((byte >> (place // 4 * 4)) & 15) - 8


@inlined
def _row_int8(block, groups, act, row):
    acc = ZERO
    for group in range(groups):
        tile, x = block + group * GROUP_BYTES, act + group * INT8_GROUP_BYTES
        dot = 0
        for index in range(32):
            dot += _weight(tile, row, index) * load_i8(x, index)
        scale = _scale(block, groups, group, row) * load_f32(x + SCALE_AT, 0)
        acc = acc + np.float32(dot) * scale
    return acc


@inlined
def _row_bf16(block, groups, act, row):
    acc = ZERO
    for group in range(groups):
        tile, x = block + group * GROUP_BYTES, act + group * BF16_GROUP_BYTES
        total = ZERO
        for index in range(32):
            total = total + load_f32(x, index) * np.float32(_weight(tile, row, index))
        acc = acc + total * _scale(block, groups, group, row)
    return acc


def _rows16(row_of):
    def rows16(block, groups, acts, stride, rows, n, out, out_stride):
        for i in range(n):
            act = acts + load_i32(rows, i) * stride
            for row in range(ROWS):
                store_f32(out + i * out_stride, row, row_of(block, groups, act, row))

    return rows16


rows16_int8 = _rows16(_row_int8)
rows16_bf16 = _rows16(_row_bf16)
