"""out = W x (+ residual) over a block of tokens, spread over the pool by tiles of outputs."""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201, ANN202 (compiled code: numba infers the types)

from functools import cache
from typing import Any

from numba import carray, types

from hybrid.cpu_dense.matrix import MATRIX, fill_matrix, matrix_at, multiply_tile, tiles_at_once
from hybrid.cpu_dense.panel import LANES, LINE_BYTES, MAX_TILES
from hybrid.cpu_dense.records import entry, offset, record, unit_address
from hybrid.cpu_dense.rows import Rows
from hybrid.cpu_dense.tiles import Tiled
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.pool import parallel

GRAIN = 96 * 1024  # bytes of weights times tokens of a unit: about 5 us on a Zen 3 core

LINEAR, linear_at = record(
    "unit"  # address of the compiled `linear_unit`
    " x x_bytes"  # [tokens] rows of float32, readable up to a multiple of 32 inputs
    " out out_bytes"  # [tokens] rows of `rows` float32
    " residual"  # 0, or rows like `out` to be added
    " tokens tiles",  # tiles of one unit
    matrix=MATRIX,
)
L_MATRIX = offset(LINEAR, "matrix")


def fill_linear(job: Any, weight: Tiled, x: Rows, out: Rows | None) -> None:
    """Fill a record; `out` None means contiguous rows whose address comes with each call."""
    job["unit"] = unit_address("linear", linear_unit)
    fill_matrix(job["matrix"], weight)
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
    job, matrix = carray(linear_at(at), 1)[0], carray(matrix_at(at + L_MATRIX), 1)[0]
    tiles = (matrix.rows + LANES - 1) // LANES
    each = max(1, GRAIN // max(1, matrix.steps * matrix.step_bytes * job.tokens))
    if job.tokens <= 2:
        each = (each + MAX_TILES - 1) // MAX_TILES * MAX_TILES
    job.tiles = each
    parallel(state, job.unit, at, (tiles + each - 1) // each)


def linear_unit(at, unit, worker):
    """Tiles unit * tiles … of a linear."""
    job, matrix = carray(linear_at(at), 1)[0], carray(matrix_at(at + L_MATRIX), 1)[0]
    tile = unit * job.tiles
    last = min(tile + job.tiles, (matrix.rows + LANES - 1) // LANES)
    together = tiles_at_once(job.tokens)
    while tile < last:
        count = together if tile + together <= last else 1
        at_lane = tile * LINE_BYTES
        multiply_tile(
            matrix, 0, tile, count, job.x, job.x_bytes, job.tokens,
            job.out + at_lane, job.out_bytes, job.residual + at_lane if job.residual != 0 else 0,
        )  # fmt: skip
        tile += count


def _multiply(at, state):
    run_linear(state, at)
