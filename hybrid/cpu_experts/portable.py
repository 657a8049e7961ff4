"""`rows16` in plain scalar code: runs everywhere, and is what the others are checked against.

Same arguments as the micro-kernels of rows/, codes never biased, any n.
"""
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
from hybrid.cpu_experts.record import GROUP_BYTES, LINE_BYTES, ROWS, STRIDE
from hybrid.cpu_experts.rows.modes import INT8, INT16

INT8_SCALE, INT16_SCALE = INT8.scale_at, INT16.scale_at
ZERO = np.float32(0.0)


@inlined
def _scale(tile, row):
    bits = load_u16(tile + GROUP_BYTES, row)
    return float_of(np.uint32(np.uint32(bits) << np.uint32(16)))


@inlined
def _weight(tile, row, index):
    """The weight of input `index` (0...31), without its scale."""
    line, place = index // 8, index % 8
    byte = np.int32(load_u8(tile, line * LINE_BYTES + row * 4 + place % 4))
    return ((byte >> (place // 4 * 4)) & 15) - 8


@inlined
def _row_int8(block, groups, act, step, row):
    acc = ZERO
    for group in range(groups):
        tile, x = block + group * STRIDE, act + group * step
        dot = 0
        for index in range(32):
            dot += _weight(tile, row, index) * load_i8(x, index)
        acc = acc + np.float32(dot) * (_scale(tile, row) * load_f32(x + INT8_SCALE, 0))
    return acc


@inlined
def _row_int16(block, groups, act, step, row):
    acc = ZERO
    for group in range(groups):
        tile, x = block + group * STRIDE, act + group * step
        dot = 0
        for index in range(32):
            dot += _weight(tile, row, index) * (256 * load_i8(x, index) + load_i8(x, 32 + index))
        acc = acc + np.float32(dot) * (_scale(tile, row) * load_f32(x + INT16_SCALE, 0))
    return acc


@inlined
def _row_bf16(block, groups, act, step, row):
    acc = ZERO
    for group in range(groups):
        tile, x = block + group * STRIDE, act + group * step
        total = ZERO
        for index in range(32):
            total = total + load_f32(x, index) * np.float32(_weight(tile, row, index))
        acc = acc + total * _scale(tile, row)
    return acc


def _rows16(row_of):
    def rows16(block, blocks, groups, acts, stride, step, index, n, out):
        for each in range(blocks):
            at = block + each * groups * STRIDE
            for i in range(n):
                act = acts + load_i32(index, i) * stride
                for row in range(ROWS):
                    value = row_of(at, groups, act, step, row)
                    store_f32(out, (i * blocks + each) * ROWS + row, value)

    return rows16


ROWS16 = {
    "int8": _rows16(_row_int8),
    "int16": _rows16(_row_int16),
    "bf16": _rows16(_row_bf16),
}
