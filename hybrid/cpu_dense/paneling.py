"""The micro-kernels of one to six tokens behind one name, chosen by a compiled switch."""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201 (compiled code: numba infers the types)

import numpy as np

from hybrid.cpu_dense import panel
from hybrid.cpu_dense.panel import LINE_BYTES
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.simd import splat_f32, store_f32x8

paired_1, paired_2, paired_3, paired_4, paired_5, paired_6 = panel.PAIRED
plain_1, plain_2, plain_3, plain_4, plain_5, plain_6 = panel.PLAIN


@inlined
def clear(sums, lines):
    """Zero the sums of `lines` tokens or tiles."""
    for at in range(0, lines * LINE_BYTES, 32):
        store_f32x8(sums, at, splat_f32(np.float32(0.0)))


@inlined
def paired(tokens, weights, x, x_bytes, pairs, out, out_bytes):
    """One tile of a matrix in tiles; adds to `out`."""
    if tokens == 1:
        paired_1(weights, 0, x, x_bytes, pairs, out, out_bytes)
    elif tokens == 2:
        paired_2(weights, 0, x, x_bytes, pairs, out, out_bytes)
    elif tokens == 3:
        paired_3(weights, 0, x, x_bytes, pairs, out, out_bytes)
    elif tokens == 4:
        paired_4(weights, 0, x, x_bytes, pairs, out, out_bytes)
    elif tokens == 5:
        paired_5(weights, 0, x, x_bytes, pairs, out, out_bytes)
    else:
        paired_6(weights, 0, x, x_bytes, pairs, out, out_bytes)


@inlined
def plain(tokens, weights, row_bytes, x, x_bytes, inputs, out, out_bytes):
    """16 columns of rows of bf16, `row_bytes` apart; adds to `out`."""
    if tokens == 1:
        plain_1(weights, row_bytes, x, x_bytes, inputs, out, out_bytes)
    elif tokens == 2:
        plain_2(weights, row_bytes, x, x_bytes, inputs, out, out_bytes)
    elif tokens == 3:
        plain_3(weights, row_bytes, x, x_bytes, inputs, out, out_bytes)
    elif tokens == 4:
        plain_4(weights, row_bytes, x, x_bytes, inputs, out, out_bytes)
    elif tokens == 5:
        plain_5(weights, row_bytes, x, x_bytes, inputs, out, out_bytes)
    else:
        plain_6(weights, row_bytes, x, x_bytes, inputs, out, out_bytes)
