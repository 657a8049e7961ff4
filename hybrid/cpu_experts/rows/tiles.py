"""Many activation rows on AMX: 16 rows x 16 outputs x 32 inputs of a group in one instruction.

A line of a group, split into its nibbles, is two rows of an AMX B tile as it stands (record.py):

    A     16 activation rows x 32 codes        gathered, 32 B a row
    B     8 rows of 64 B = 32 inputs x 16      nibble - 8, expanded once for all activation rows
    C     16 x 16 int32                        the group's exact dot products

Scales change every group, so C goes to L1 after each and the float epilogue is the same as ever.
"""

from typing import Any

from hybrid.cpu_experts.record import LINE_BYTES, STRIDE
from hybrid.cpu_experts.rows.emit import F32, I8, I16, I64, VOID, Code, vector
from hybrid.cpu_experts.rows.modes import Mode
from hybrid.cpu_experts.rows.stream import AHEAD, prefetch_group
from hybrid.cpu_experts.rows.vocabulary import LINES, Simd

TILE_ROWS = 16
PLANE_BYTES = 32
A_BYTES, B_BYTES, C_BYTES = TILE_ROWS * PLANE_BYTES, 8 * LINE_BYTES, TILE_ROWS * LINE_BYTES
A_TILE, B_TILE = 4, 6  # C tiles are 0 … 3: two planes of two blocks in flight
_ROWS_OF = dict.fromkeys(range(6), TILE_ROWS) | {6: 8, 7: 8}
_BYTES_OF = dict.fromkeys(range(4), 64) | {4: PLANE_BYTES, 5: PLANE_BYTES, 6: 64, 7: 64}


def configure(code: Code) -> None:
    """Load the tile configuration: once a call."""
    config = code.stack(64)
    for at in range(0, 64, 32):
        code.store(code.constant(vector(I8, 32), 0), config, at)
    code.store(I8(1), config, 0)  # palette
    for tile, rows in _ROWS_OF.items():
        code.store(I16(_BYTES_OF[tile]), config, 16 + 2 * tile)
        code.store(I8(rows), config, 48 + tile)
    code.call("llvm.x86.ldtilecfg", VOID, code.at(config, 0, I8))


def release(code: Code) -> None:
    """Give the tiles back: what follows pays for saving them otherwise."""
    code.call("llvm.x86.tilerelease", VOID)


def emit_tiles(code: Code, simd: Simd, mode: Mode, blocks: int, block: Any, call: Any) -> None:
    """`blocks` row blocks from `block` on, for all rows; totals are kept in `out`."""
    b = code.b
    block_bytes = b.mul(call.groups, I64(STRIDE))
    a_memory = code.stack(mode.planes * A_BYTES)
    b_memory, scales = code.stack(blocks * B_BYTES), code.stack(blocks * simd.nbytes)
    c_memory = code.stack(blocks * mode.planes * C_BYTES)

    def group(index: Any, carried: list[Any]) -> list[Any]:
        tile, offset = carried
        for number in range(blocks):
            at = b.add(tile, b.mul(block_bytes, I64(number)))
            prefetch_group(code, at, AHEAD)
            _expand(code, simd, at, b_memory, number * B_BYTES)
            code.store(simd.scale(at, 0), scales, number * simd.nbytes, simd.nbytes)

        def some_rows(first: Any, inner: list[Any]) -> list[Any]:
            left = b.sub(call.n, first)
            count = b.select(b.icmp_signed("<", left, I64(TILE_ROWS)), left, I64(TILE_ROWS))
            table = b.add(call.table, b.mul(first, I64(8)))
            out = b.add(call.out, b.mul(first, call.out_stride))
            _gather(code, mode, table, offset, count, a_memory)
            _multiply(code, mode, blocks, a_memory, b_memory, c_memory)
            start = [table, out, c_memory]
            code.loop(I64(0), count, 1, start, one_row)
            return []

        def one_row(row: Any, inner: list[Any]) -> list[Any]:
            pointer, out, c = inner
            scale = simd.every(b.add(code.load(pointer, 0, I64), offset), mode.scale_at, F32)
            for number in range(blocks):
                dot = _dot(code, simd, mode, c, number)
                weights = code.load(scales, number * simd.nbytes, simd.floats, simd.nbytes)
                total = code.load(out, number * simd.nbytes, simd.floats)
                both = b.fmul(weights, scale)
                code.store(simd.scaled(total, dot, both), out, number * simd.nbytes)
            following = b.add(c, I64(LINE_BYTES))
            return [b.add(pointer, I64(8)), b.add(out, call.out_stride), following]

        code.loop(I64(0), call.n, TILE_ROWS, [], some_rows)
        return [b.add(tile, I64(STRIDE)), b.add(offset, call.step)]

    call.clear(simd, blocks)
    code.loop(I64(0), call.groups, 1, [block, I64(0)], group)


def _expand(code: Code, simd: Simd, tile: Any, memory: Any, at: int) -> None:
    """One row block's group as a B tile: row 2 line = low nibbles, row 2 line + 1 = high ones."""
    eight = code.constant(simd.bytes, 8)
    for line in range(LINES):
        for half, nibbles in enumerate(simd.nibbles(tile, 0, line)):
            place = at + (2 * line + half) * LINE_BYTES
            code.store(code.b.sub(nibbles, eight), memory, place, LINE_BYTES)


def _gather(code: Code, mode: Mode, table: Any, offset: Any, count: Any, memory: Any) -> None:
    """Codes of up to 16 rows side by side; what is left in further rows is computed and dropped."""
    b, kind = code.b, vector(I8, PLANE_BYTES)

    def one_row(row: Any, carried: list[Any]) -> list[Any]:
        pointer, to = carried
        x = b.add(code.load(pointer, 0, I64), offset)
        for plane in range(mode.planes):
            codes = code.load(x, PLANE_BYTES * plane, kind)
            code.store(codes, to, plane * A_BYTES, PLANE_BYTES)
        return [b.add(pointer, I64(8)), b.add(to, I64(PLANE_BYTES))]

    code.loop(I64(0), count, 1, [table, memory], one_row)


def _multiply(code: Code, mode: Mode, blocks: int, a: Any, b: Any, c: Any) -> None:
    for plane in range(mode.planes):
        _move(code, "tileloadd64", A_TILE + plane, a, plane * A_BYTES, PLANE_BYTES)
    for number in range(blocks):
        b_tile = B_TILE + number % 2
        _move(code, "tileloadd64", b_tile, b, number * B_BYTES, LINE_BYTES)
        for plane in range(mode.planes):
            c_tile = 2 * (number % 2) + plane
            code.call("llvm.x86.tilezero", VOID, I8(c_tile))
            tiles = I8(c_tile), I8(A_TILE + plane), I8(b_tile)
            code.call("llvm.x86.tdpbssd", VOID, *tiles)
            at = (number * mode.planes + plane) * C_BYTES
            _move(code, "tilestored64", c_tile, c, at, LINE_BYTES)


def _move(code: Code, name: str, tile: int, memory: Any, at: int, stride: int) -> None:
    code.call(f"llvm.x86.{name}", VOID, I8(tile), code.at(memory, at, I8), I64(stride))


def _dot(code: Code, simd: Simd, mode: Mode, c: Any, number: int) -> Any:
    """A row's int32 dot products with 16 outputs, from one plane or two."""
    at = number * mode.planes * C_BYTES
    planes = [code.load(c, at + plane * C_BYTES, simd.ints) for plane in range(mode.planes)]
    if len(planes) == 1:
        return planes[0]
    return code.b.add(code.b.shl(planes[0], code.constant(simd.ints, 8)), planes[1])
