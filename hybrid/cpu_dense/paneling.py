"""The micro-kernels of one to six tokens behind one address for each layout of weights.

They are compiled once and called by address: inlined into each of their callers they would be
compiled again for every one of them.
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201 (compiled code: numba infers the types)

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hybrid.cpu_dense import panel
from hybrid.cpu_dense.panel import LINE_BYTES
from hybrid.cpu_dense.records import unit_address
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.simd import splat_f32, store_f32x8

ARGUMENTS = 9  # of a panel: tokens tiles weights stride x x_bytes steps out out_bytes

paired_1, paired_2, paired_3, paired_4, paired_5, paired_6, paired_2x2, paired_1x4 = panel.PAIRED
plain_1, plain_2, plain_3, plain_4, plain_5, plain_6 = panel.PLAIN
coded_1, coded_2, coded_3, coded_4, coded_5, coded_6, coded_2x2, coded_1x4 = panel.CODED


def paired(tokens, tiles, weights, stride, x, x_bytes, steps, out, out_bytes):
    """Tiles of bf16, two inputs a step; adds to `out`."""
    if tiles == 4:
        paired_1x4(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tiles == 2:
        paired_2x2(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 1:
        paired_1(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 2:
        paired_2(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 3:
        paired_3(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 4:
        paired_4(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 5:
        paired_5(weights, stride, x, x_bytes, steps, out, out_bytes)
    else:
        paired_6(weights, stride, x, x_bytes, steps, out, out_bytes)


def plain(tokens, tiles, weights, stride, x, x_bytes, steps, out, out_bytes):
    """16 columns of rows of bf16, a row a step; adds to `out`."""
    if tokens == 1:
        plain_1(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 2:
        plain_2(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 3:
        plain_3(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 4:
        plain_4(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 5:
        plain_5(weights, stride, x, x_bytes, steps, out, out_bytes)
    else:
        plain_6(weights, stride, x, x_bytes, steps, out, out_bytes)


def coded(tokens, tiles, weights, stride, x, x_bytes, steps, out, out_bytes):
    """Tiles of int8 codes, a group of 32 inputs a step; adds to `out`."""
    if tiles == 4:
        coded_1x4(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tiles == 2:
        coded_2x2(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 1:
        coded_1(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 2:
        coded_2(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 3:
        coded_3(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 4:
        coded_4(weights, stride, x, x_bytes, steps, out, out_bytes)
    elif tokens == 5:
        coded_5(weights, stride, x, x_bytes, steps, out, out_bytes)
    else:
        coded_6(weights, stride, x, x_bytes, steps, out, out_bytes)


PANELS = {"paired": paired, "plain": plain, "coded": coded}


def address(name: str) -> int:
    """Address of a compiled panel, for a record."""
    return unit_address(name, PANELS[name], types.void(*[types.intp] * ARGUMENTS))


@intrinsic
def call_panel(
    typing: Any, address: Any, tokens: Any, tiles: Any, weights: Any, stride: Any, x: Any,
    xb: Any, steps: Any, out: Any, ob: Any,
) -> Any:  # fmt: skip
    """Call one of the three by its address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * ARGUMENTS)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * (ARGUMENTS + 1)), codegen


@inlined
def clear(sums, lines):
    """Zero `lines` lines of sums."""
    for at in range(0, lines * LINE_BYTES, 32):
        store_f32x8(sums, at, splat_f32(np.float32(0.0)))
