"""Many activation rows, weights of a group in registers: for 32 wide registers and VNNI.

vpdpbusd takes its signed operand, four activation bytes for every lane, straight from memory, so
nothing is expanded and nothing is biased: 16 output rows stay in eight registers while all rows
pass.
"""

from typing import Any

from hybrid.cpu_experts.record import ROWS, STRIDE
from hybrid.cpu_experts.rows.direct import combined
from hybrid.cpu_experts.rows.emit import F32, I32, I64, Code
from hybrid.cpu_experts.rows.modes import Mode
from hybrid.cpu_experts.rows.stream import AHEAD, prefetch_group
from hybrid.cpu_experts.rows.vocabulary import LINES, Simd


def emit_resident(code: Code, simd: Simd, mode: Mode, blocks: int, block: Any, call: Any) -> None:
    """One row block (blocks is 1) for all rows; totals are kept in `out`."""
    b = code.b
    assert blocks * ROWS == simd.lanes

    def group(index: Any, carried: list[Any]) -> list[Any]:
        tile, offset = carried
        prefetch_group(code, tile, AHEAD)
        weights = [half for line in range(LINES) for half in simd.nibbles(tile, 0, line)]
        scales = simd.scale(tile, 0)

        def one_row(row: Any, inner: list[Any]) -> list[Any]:
            pointer, out = inner
            x = b.add(code.load(pointer, 0, I64), offset)
            sums = []
            for plane in range(mode.planes):
                total = simd.begin()
                for step, weight in enumerate(weights):
                    total = simd.add_products(total, weight, simd.codes(x, 32 * plane + 4 * step))
                sums.append(total)
            dot = b.sub(combined(simd, sums), simd.every(x, mode.offset_at, I32))
            both = b.fmul(scales, simd.every(x, mode.scale_at, F32))
            code.store(simd.scaled(code.load(out, 0, simd.floats), dot, both), out, 0)
            return [b.add(pointer, I64(8)), b.add(out, call.out_stride)]

        code.loop(I64(0), call.n, 1, [call.table, call.out], one_row)
        return [b.add(tile, I64(STRIDE)), b.add(offset, call.step)]

    call.clear(simd, 1)
    code.loop(I64(0), call.groups, 1, [block, I64(0)], group)
