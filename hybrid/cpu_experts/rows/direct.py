"""Up to four activation rows: weights go once from memory through registers.

For each group and each line of it: split the nibbles, multiply by four bytes of every row. Sums of
bytes stay in registers. Time is the memory's as long as that arithmetic is quicker.

    one row        four row blocks side by side, so four streams from memory: that is what the
                   prefetchers of a core want, and the row's bytes are broadcast once for all four
                   (docs/log.md). The float32 totals lie in L1
    two to four    one row block after another; totals stay in registers (with four rows on AVX2
                   they overflow to the stack). Arithmetic weighs more than streams here
"""

from collections.abc import Sequence
from typing import Any

from hybrid.cpu_experts.record import ROWS, STRIDE
from hybrid.cpu_experts.rows.emit import F32, I32, I64, Code
from hybrid.cpu_experts.rows.modes import Mode
from hybrid.cpu_experts.rows.stream import prefetch_group, stream_blocks
from hybrid.cpu_experts.rows.vocabulary import LINES, Simd

MAX_ROWS = 4
SUMS = 8  # that fit into registers beside what the products need
AHEAD = 512  # bytes of each stream: 256 to 512 are best, 768 loses 7 % (docs/log.md)

Place = tuple[Any, int]  # a group of a row block, and which vector of its 16 rows


def emit_direct(code: Code, simd: Simd, mode: Mode, rows: int, block: Any, call: Any) -> None:
    """One row block after another, for exactly `rows` rows. `call` is rows/kernel.py's Call."""
    parts = ROWS // simd.lanes

    def group(tile: Any, x: list[Any], totals: list[Any]) -> list[Any]:
        places = [(tile, part) for part in range(parts)]
        before = [totals[row * parts : (row + 1) * parts] for row in range(rows)]
        after = _group(code, simd, mode, places, x, before)
        return [total for row in after for total in row]

    stream_blocks(code, simd, rows, block, call, group)


def emit_single(code: Code, simd: Simd, mode: Mode, blocks: int, block: Any, call: Any) -> None:
    """`blocks` row blocks side by side for one row, call.pointers[0]; totals grow in call.out."""
    b, parts = code.b, ROWS // simd.lanes
    vectors, together = blocks * parts, SUMS // mode.planes
    block_bytes = b.mul(call.groups, I64(STRIDE))
    call.clear(simd, vectors)

    def one_group(index: Any, carried: list[Any]) -> list[Any]:
        tile, x = carried
        tiles = [b.add(tile, b.mul(I64(each), block_bytes)) for each in range(blocks)]
        for each in tiles:
            prefetch_group(code, each, AHEAD)
        for first in range(0, vectors, together):
            some = range(first, min(first + together, vectors))
            at = [vector * simd.nbytes for vector in some]
            places = [(tiles[vector // parts], vector % parts) for vector in some]
            before = [code.load(call.out, offset, simd.floats) for offset in at]
            (after,) = _group(code, simd, mode, places, [x], [before])
            for offset, total in zip(at, after, strict=True):
                code.store(total, call.out, offset)
        return [b.add(tile, I64(STRIDE)), b.add(x, call.step)]

    code.loop(I64(0), call.groups, 1, [block, call.pointers[0]], one_group)


def _group(
    code: Code,
    simd: Simd,
    mode: Mode,
    places: Sequence[Place],
    x: Sequence[Any],
    totals: Sequence[Sequence[Any]],
) -> list[list[Any]]:
    """totals [rows][places] plus what one group adds."""
    sums = _products(simd, mode, places, x)
    facts = [
        (simd.every(row, mode.offset_at, I32), simd.every(row, mode.scale_at, F32)) for row in x
    ]
    after: list[list[Any]] = [[] for _ in x]
    for index, place in enumerate(places):
        weights_scale = simd.scale(*place)
        for row, (bias, scale) in enumerate(facts):
            dot = code.b.sub(combined(simd, sums[row][index]), bias)
            both = code.b.fmul(weights_scale, scale)
            after[row].append(simd.scaled(totals[row][index], dot, both))
    return after


def combined(simd: Simd, sums: list[Any]) -> Any:
    """The dot product of int32 from the sums of one plane or of two."""
    low = simd.widened(sums[-1], 1)
    return simd.code.b.add(simd.widened(sums[0], 256), low) if len(sums) == 2 else low


def _products(simd: Simd, mode: Mode, places: Sequence[Place], x: Sequence[Any]) -> Any:
    """[rows][places][planes]: sums of nibble * code.

    What is fewer stays in registers while the other passes by: the codes of one row, or the nibbles
    of one row block.
    """
    sums = [[[simd.begin()] * mode.planes for _ in places] for _ in x]

    def add(row: int, place: int, plane: int, unsigned: Any, codes: Any) -> None:
        before = sums[row][place][plane]
        sums[row][place][plane] = simd.add_products(before, unsigned, codes)

    def codes_of(row: int, plane: int, line: int, half: int) -> Any:
        return simd.codes(x[row], 32 * plane + 8 * line + 4 * half)

    steps = [(plane, half) for half in range(2) for plane in range(mode.planes)]
    for line in range(LINES):
        if len(x) == 1:
            codes = [codes_of(0, plane, line, half) for plane, half in steps]
            for index, (tile, part) in enumerate(places):
                halves = simd.nibbles(tile, part, line)
                for (plane, half), each in zip(steps, codes, strict=True):
                    add(0, index, plane, halves[half], each)
        else:
            nibbles = [simd.nibbles(tile, part, line) for tile, part in places]
            for plane, half in steps:
                for row in range(len(x)):
                    each = codes_of(row, plane, line, half)
                    for index, halves in enumerate(nibbles):
                        add(row, index, plane, halves[half], each)
    return sums
