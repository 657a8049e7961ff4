"""Row blocks one after another for a fixed number of rows, totals in registers: one pass.

The frame of the shapes that meet weights as they come from memory; what happens in a group is
theirs.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hybrid.cpu_experts.record import LINE_BYTES, ROWS, STRIDE
from hybrid.cpu_experts.rows.emit import I64, Code
from hybrid.cpu_experts.rows.vocabulary import Simd

AHEAD = 2048  # bytes: from 1 to 16 KiB it makes no difference (docs/log.md)

# (tile, addresses of the rows' groups, totals [rows * parts]) -> new totals
Group = Callable[[Any, list[Any], list[Any]], Sequence[Any]]


def stream_blocks(code: Code, simd: Simd, rows: int, block: Any, call: Any, group: Group) -> None:
    """Emit `group` for each group of each row block, and store the totals [rows][16]."""
    b, parts = code.b, ROWS // simd.lanes
    zero = code.constant(simd.floats, 0.0)

    def one_block(index: Any, carried: list[Any]) -> list[Any]:
        block, out = carried
        start = [block, I64(0), *[zero] * (rows * parts)]
        tile, _, *totals = code.loop(I64(0), call.groups, 1, start, one_group)
        for row in range(rows):
            for part in range(parts):
                at = b.add(out, b.mul(I64(row), call.out_stride))
                code.store(totals[row * parts + part], at, part * simd.nbytes)
        return [tile, b.add(out, I64(4 * ROWS))]

    def one_group(index: Any, carried: list[Any]) -> list[Any]:
        tile, offset, *totals = carried
        prefetch_group(code, tile, AHEAD)
        x = [b.add(row, offset) for row in call.pointers[:rows]]
        results = group(tile, x, totals)
        return [b.add(tile, I64(STRIDE)), b.add(offset, call.step), *results]

    code.loop(I64(0), call.blocks, 1, [block, call.out], one_block)


def prefetch_group(code: Code, tile: Any, ahead: int) -> None:
    """The lines of a group, `ahead` bytes before they are needed."""
    for at in range(0, STRIDE, LINE_BYTES):
        code.prefetch(tile, ahead + at)
