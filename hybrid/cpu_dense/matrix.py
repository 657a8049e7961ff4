"""Some tiles of 16 outputs for all tokens of a call, whatever the weights are stored as.

Up to six tokens take a tile as one stream from memory to registers. More take it in parts of some
8 KiB, which stay in the first cache while all tokens pass; their sums wait on the stack. The sum of
an output never depends on that (panel.py).
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201, ANN202 (compiled code: numba infers the types)

from typing import Any

import numpy as np

from hybrid.cpu_dense import paneling
from hybrid.cpu_dense.frame import BLOCK_TOKENS, stack_sums
from hybrid.cpu_dense.panel import LANES, LINE_BYTES, MAX_TILES, MAX_TOKENS
from hybrid.cpu_dense.paneling import call_panel, clear
from hybrid.cpu_dense.records import record
from hybrid.cpu_dense.tiles import Tiled
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import load_f32, store_f32
from hybrid.cpu_experts.simd import add, load_f32x8, store_f32x8

MATRIX, matrix_at = record(
    "panel weights"  # addresses of the micro-kernels and of the first tile
    " rows"
    " planes plane_bytes"  # the matrix is the sum of its planes
    " steps step_bytes step_inputs"  # of one tile; a step is what the micro-kernel takes at once
    " part"  # steps that stay in the first cache
)


def fill_matrix(job: Any, weight: Tiled) -> None:
    """Fill a record; planes may also be equal matrices of which a caller takes one at a time."""
    layout = weight.layout
    job["panel"], job["weights"] = paneling.address(layout.panel), weight.address
    job["rows"], job["planes"] = weight.rows, weight.planes
    job["plane_bytes"] = layout.nbytes(weight.rows, weight.columns)
    job["steps"], job["part"] = layout.steps(weight.columns), layout.part
    job["step_bytes"], job["step_inputs"] = layout.step_bytes, layout.step_inputs


@inlined
def even_split(tokens):
    """Tokens of one pass: at most MAX_TOKENS, and no pass nearly empty."""
    passes = (tokens + MAX_TOKENS - 1) // MAX_TOKENS
    return (tokens + passes - 1) // passes


@inlined
def tiles_at_once(tokens):
    """How many tiles a pass of few tokens takes (panel.py)."""
    return MAX_TILES // tokens if tokens <= 2 else 1


@inlined
def multiply_tile(matrix, first, tile, count, x, x_bytes, tokens, out, out_bytes, residual):
    """Tiles tile … tile + count - 1 of the matrix whose tile 0 is number `first` in memory.

    `count` is 1 or what `tiles_at_once` says; out and residual are those of `tile`.
    """
    sums, sums_bytes = stack_sums(), count * LINE_BYTES
    weights = matrix.weights + (first + tile) * matrix.steps * matrix.step_bytes
    lanes = min(count * LANES, matrix.rows - tile * LANES)
    for token in range(0, tokens, BLOCK_TOKENS):
        some = min(BLOCK_TOKENS, tokens - token)
        clear(sums, some * count)
        for plane in range(matrix.planes):
            source = weights + plane * matrix.plane_bytes
            _pass(matrix, source, count, x + token * x_bytes, x_bytes, some, sums)
        above = residual + token * out_bytes if residual != 0 else 0
        _write(sums, sums_bytes, out + token * out_bytes, out_bytes, above, lanes, some)


@inlined
def _pass(matrix, weights, tiles, x, x_bytes, tokens, sums):
    """One plane."""
    part = matrix.steps if tokens <= MAX_TOKENS else matrix.part
    group = even_split(tokens)
    for step in range(0, matrix.steps, part):
        for token in range(0, tokens, group):
            call_panel(
                matrix.panel, min(group, tokens - token), tiles,
                weights + step * matrix.step_bytes, matrix.steps * matrix.step_bytes,
                x + token * x_bytes + step * matrix.step_inputs * 4, x_bytes,
                min(part, matrix.steps - step), sums + token * tiles * LINE_BYTES,
                tiles * LINE_BYTES,
            )  # fmt: skip


@inlined
def _write(sums, sums_bytes, out, out_bytes, residual, lanes, tokens):
    """Copy `lanes` of each token's sums to its row, plus the residual's row if there is one."""
    for token in range(tokens):
        source, target = sums + token * sums_bytes, out + token * out_bytes
        above = residual + token * out_bytes
        whole = lanes // 8 * 8
        for at in range(0, whole * 4, 32):
            value = load_f32x8(source, at)
            if residual != 0:
                value = add(load_f32x8(above, at), value)
            store_f32x8(target, at, value)
        for lane in range(whole, lanes):
            single = load_f32(source, lane)
            if residual != 0:
                single = np.float32(load_f32(above, lane) + single)
            store_f32(target, lane, single)
