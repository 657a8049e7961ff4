"""Up to four activation rows: weights go once from memory through registers, in one stream.

For each group and each line of it: split the nibbles, multiply by four bytes of every row. Sums of
bytes, and the float32 totals of all groups, stay in registers (with four rows on AVX2 the latter
overflow to the stack). Time is the memory's as long as that arithmetic is quicker.
"""

from typing import Any

from hybrid.cpu_experts.record import ROWS
from hybrid.cpu_experts.rows.emit import F32, I32, Code
from hybrid.cpu_experts.rows.modes import Mode
from hybrid.cpu_experts.rows.stream import stream_blocks
from hybrid.cpu_experts.rows.vocabulary import LINES, Simd

MAX_ROWS = 4


def emit_direct(code: Code, simd: Simd, mode: Mode, rows: int, block: Any, call: Any) -> None:
    """One row block after another, for exactly `rows` rows. `call` is rows/kernel.py's Call."""
    b, parts = code.b, ROWS // simd.lanes

    def group(tile: Any, x: list[Any], totals: list[Any]) -> list[Any]:
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
        return results

    stream_blocks(code, simd, mode, rows, block, call, group)


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
