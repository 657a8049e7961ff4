"""Up to four activation rows: weights go once from memory through registers, in one stream.

For each group and each line of it: split the nibbles, multiply by four bytes of every row. Sums of
bytes, and the float32 totals of all groups, stay in registers (with four rows on AVX2 the latter
overflow to the stack). Time is the memory's as long as that arithmetic is quicker.
"""

from typing import Any

from hybrid.cpu_experts.record import LINE_BYTES, ROWS, STRIDE
from hybrid.cpu_experts.rows.emit import F32, I32, I64, Code
from hybrid.cpu_experts.rows.modes import Mode
from hybrid.cpu_experts.rows.vocabulary import LINES, Simd

MAX_ROWS = 4
AHEAD = 2048  # bytes of prefetch


def emit_direct(code: Code, simd: Simd, mode: Mode, rows: int, block: Any, call: Any) -> None:
    """One row block after another, for exactly `rows` rows. `call` is rows/kernel.py's Call."""
    b, parts = code.b, ROWS // simd.lanes
    zero = code.constant(simd.floats, 0.0)

    def one_block(index: Any, carried: list[Any]) -> list[Any]:
        block, out = carried
        start = [block, I64(0), *[zero] * (rows * parts)]
        tile, _, *totals = code.loop(I64(0), call.groups, 1, start, group)
        for row in range(rows):
            for part in range(parts):
                at = b.add(out, b.mul(I64(row), call.out_stride))
                code.store(totals[row * parts + part], at, part * simd.nbytes)
        return [tile, b.add(out, I64(4 * ROWS))]

    def group(index: Any, carried: list[Any]) -> list[Any]:
        tile, offset, *totals = carried
        prefetch_group(code, tile, AHEAD)
        x = [b.add(row, offset) for row in call.pointers[:rows]]
        sums = _products(code, simd, mode, tile, x)
        scales = [simd.scale(tile, part) for part in range(parts)]
        results = []
        for row in range(rows):
            bias = simd.every(x[row], mode.offset_at, I32)
            scale = simd.every(x[row], mode.scale_at, F32)
            for part in range(parts):
                dot = b.sub(combined(simd, sums[row, part]), bias)
                both = b.fmul(scales[part], scale)
                results.append(simd.scaled(totals[row * parts + part], dot, both))
        return [
            b.add(tile, I64(STRIDE)),
            b.add(offset, I64(mode.group_bytes)),
            *results,
        ]

    code.loop(I64(0), call.blocks, 1, [block, call.out], one_block)


def prefetch_group(code: Code, tile: Any, ahead: int) -> None:
    """The lines of a group, `ahead` bytes before they are needed."""
    for at in range(0, STRIDE, LINE_BYTES):
        code.prefetch(tile, ahead + at)


def combined(simd: Simd, sums: list[Any]) -> Any:
    """The dot product of int32 from the sums of one plane or of two."""
    low = simd.widened(sums[-1], 1)
    return simd.code.b.add(simd.widened(sums[0], 256), low) if len(sums) == 2 else low


def _products(code: Code, simd: Simd, mode: Mode, tile: Any, x: list[Any]) -> Any:
    """(row, part) -> sums of nibble * code, one for each plane."""
    parts = range(ROWS // simd.lanes)
    sums = {(row, part): [simd.begin()] * mode.planes for row in range(len(x)) for part in parts}
    for line in range(LINES):
        halves = [simd.nibbles(tile, part, line) for part in parts]
        for half in range(2):
            for row, address in enumerate(x):
                for plane in range(mode.planes):
                    codes = simd.codes(address, 32 * plane + 8 * line + 4 * half)
                    for part in parts:
                        before = sums[row, part][plane]
                        after = simd.add_products(before, halves[part][half], codes)
                        sums[row, part][plane] = after
    return sums
