"""bf16 activations: inputs are multiplied one after another in float32, as the model was trained.

Slow and exact in the sense of design §4.1: for each group the sum of x * (nibble - 8) in ascending
order of the inputs, then one multiplication by the weights' scale.
"""

from typing import Any

from hybrid.cpu_experts.record import LINE_BYTES, ROWS
from hybrid.cpu_experts.rows.emit import F32, Code
from hybrid.cpu_experts.rows.modes import Mode
from hybrid.cpu_experts.rows.stream import stream_blocks
from hybrid.cpu_experts.rows.vocabulary import LINES, Simd


def emit_exact(code: Code, simd: Simd, mode: Mode, rows: int, block: Any, call: Any) -> None:
    """One row block after another, for exactly `rows` rows. `call` is rows/kernel.py's Call."""
    b, parts = code.b, ROWS // simd.lanes
    zero = code.constant(simd.floats, 0.0)

    def group(tile: Any, x: list[Any], totals: list[Any]) -> list[Any]:
        sums = [zero] * (rows * parts)
        for line in range(LINES):
            for part in range(parts):
                at = line * LINE_BYTES + part * simd.nbytes
                packed = code.load(tile, at, simd.ints)
                for place in range(8):
                    weight = _weight(code, simd, packed, place)
                    for row in range(rows):
                        value = simd.every(x[row], 4 * (8 * line + place), F32)
                        slot = row * parts + part
                        sums[slot] = b.fadd(sums[slot], b.fmul(value, weight))
        scales = [simd.scale(tile, part) for part in range(parts)]
        return [
            b.fadd(total, b.fmul(part_sum, scales[slot % parts]))
            for slot, (total, part_sum) in enumerate(zip(totals, sums, strict=True))
        ]

    stream_blocks(code, simd, rows, block, call, group)


def _weight(code: Code, simd: Simd, packed: Any, place: int) -> Any:
    """nibble - 8 of input `place` (0 … 7) of a line, as float32."""
    b = code.b
    shift = code.constant(simd.ints, place % 4 * 8 + place // 4 * 4)
    nibble = b.and_(b.lshr(packed, shift), code.constant(simd.ints, 15))
    return b.sitofp(b.sub(nibble, code.constant(simd.ints, 8)), simd.floats)
