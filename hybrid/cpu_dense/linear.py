"""out = W x (+ residual) over a block of tokens, spread over the pool by tiles of outputs.

For one token a tile's weights are read once and four tiles run together; for several, a tile stays
in the core's cache while all tokens pass. The sum of an output never depends on that (panel.py).
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201, ANN202 (compiled code: numba infers the types)

from functools import cache
from typing import Any

import numpy as np
from numba import carray, types

from hybrid.cpu_dense.panel import LANES, LINE_BYTES, MAX_TILES, MAX_TOKENS, four_tiles, stack_lines
from hybrid.cpu_dense.paneling import clear, paired
from hybrid.cpu_dense.records import entry, record, unit_address
from hybrid.cpu_dense.rows import Rows
from hybrid.cpu_dense.tiles import Tiled
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import load_f32, store_f32
from hybrid.cpu_experts.pool import parallel
from hybrid.cpu_experts.simd import add, load_f32x8, store_f32x8

GRAIN = 96 * 1024  # bytes of weights times tokens of a unit: about 5 us on a Zen 3 core

LINEAR, linear_at = record(
    "unit"  # address of the compiled `linear_unit`
    " weights planes rows pairs"
    " x x_bytes"  # [tokens] rows of float32, readable up to an even number of inputs
    " out out_bytes"  # [tokens] rows of `rows` float32
    " residual"  # 0, or rows like `out` to be added
    " tokens tiles"  # tiles of one unit
)


def fill_linear(job: Any, weight: Tiled, x: Rows, out: Rows | None) -> None:
    """Fill a record; `out` None means contiguous rows whose address comes with each call."""
    job["unit"] = unit_address("linear", linear_unit)
    job["weights"], job["planes"] = weight.address, weight.planes
    job["rows"], job["pairs"] = weight.rows, weight.pairs
    job["x"], job["x_bytes"] = x.address, x.row_bytes
    job["out"] = out.address if out else 0
    job["out_bytes"] = out.row_bytes if out else weight.rows * 4


@cache
def multiply() -> Any:
    """Compiled multiply(record, pool state): one linear on its own."""
    return entry("multiply", types.void(types.intp, types.intp), _multiply)


@inlined
def run_linear(state, at):
    """Run a filled record on the pool."""
    job = carray(linear_at(at), 1)[0]
    tiles = (job.rows + LANES - 1) // LANES
    each = max(1, GRAIN // max(1, job.pairs * LINE_BYTES * job.tokens))
    if job.tokens == 1:
        each = (each + MAX_TILES - 1) // MAX_TILES * MAX_TILES
    job.tiles = each
    parallel(state, job.unit, at, (tiles + each - 1) // each)


@inlined
def write_tile(tile, tile_bytes, out, out_bytes, residual, lanes, tokens):
    """Copy `lanes` of each token's 16 sums to its row, plus the residual's row if there is one."""
    for token in range(tokens):
        source, target = tile + token * tile_bytes, out + token * out_bytes
        if lanes == LANES and residual != 0:
            row = residual + token * out_bytes
            store_f32x8(target, 0, add(load_f32x8(row, 0), load_f32x8(source, 0)))
            store_f32x8(target, 32, add(load_f32x8(row, 32), load_f32x8(source, 32)))
        elif lanes == LANES:
            store_f32x8(target, 0, load_f32x8(source, 0))
            store_f32x8(target, 32, load_f32x8(source, 32))
        else:
            for lane in range(lanes):
                value = load_f32(source, lane)
                if residual != 0:
                    value = np.float32(load_f32(residual + token * out_bytes, lane) + value)
                store_f32(target, lane, value)


@inlined
def one_tile(
    weights, plane_bytes, planes, pairs, x, x_bytes, tokens, out, out_bytes, residual, lanes
):
    """All tokens of one tile."""
    sums = stack_lines()
    step = even_split(tokens)
    for first in range(0, tokens, step):
        count = min(step, tokens - first)
        clear(sums, count)
        for plane in range(planes):
            rows = x + first * x_bytes
            paired(count, weights + plane * plane_bytes, rows, x_bytes, pairs, sums, LINE_BYTES)
        above = residual + first * out_bytes if residual != 0 else 0
        write_tile(sums, LINE_BYTES, out + first * out_bytes, out_bytes, above, lanes, count)


@inlined
def even_split(tokens):
    """Tokens of one pass: at most MAX_TOKENS, and no pass nearly empty."""
    passes = (tokens + MAX_TOKENS - 1) // MAX_TOKENS
    return (tokens + passes - 1) // passes


def linear_unit(at, unit, worker):
    """Tiles unit * tiles … of a linear."""
    job = carray(linear_at(at), 1)[0]
    count = (job.rows + LANES - 1) // LANES
    tile_bytes = job.pairs * LINE_BYTES
    tile, last = unit * job.tiles, min((unit + 1) * job.tiles, count)
    if job.tokens == 1 and job.planes == 1:
        sums = stack_lines()
        full = min(last, job.rows // LANES)
        while tile + MAX_TILES <= full:
            clear(sums, MAX_TILES)
            weights = job.weights + tile * tile_bytes
            four_tiles(weights, tile_bytes, job.x, 0, job.pairs, sums, 0)
            at_lane = tile * LINE_BYTES
            residual = job.residual + at_lane if job.residual != 0 else 0
            write_tile(sums, LINE_BYTES, job.out + at_lane, LINE_BYTES, residual, LANES, MAX_TILES)
            tile += MAX_TILES
    while tile < last:
        at_lane = tile * LINE_BYTES
        one_tile(
            job.weights + tile * tile_bytes, count * tile_bytes, job.planes, job.pairs,
            job.x, job.x_bytes, job.tokens, job.out + at_lane, job.out_bytes,
            job.residual + at_lane if job.residual != 0 else 0,
            min(LANES, job.rows - tile * LANES),
        )  # fmt: skip
        tile += 1


def _multiply(at, state):
    run_linear(state, at)
