"""The C function `rows16`, put together for one instruction set and one activation mode.

    rows16(block, blocks, groups, acts, stride, step, index, n, out)

See the package docstring. n is 1 … MAX_ROWS. Up to `direct.MAX_ROWS` rows take the direct shapes;
more take the instruction set's own. All go four row blocks at a time where the shape can.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hybrid.cpu_experts.record import ROWS, STRIDE
from hybrid.cpu_experts.rows import direct, tiles
from hybrid.cpu_experts.rows.emit import I32, I64, Code
from hybrid.cpu_experts.rows.exact import emit_exact
from hybrid.cpu_experts.rows.expanded import emit_expanded
from hybrid.cpu_experts.rows.modes import BF16, Mode
from hybrid.cpu_experts.rows.resident import emit_resident
from hybrid.cpu_experts.rows.vocabulary import Simd

ARGUMENTS = ("block", "blocks", "groups", "acts", "stride", "step", "index", "n", "out")
MAX_ROWS = 64
WIDE = 4  # row blocks that a shape takes together: 32 rows of gate and their 32 of up

Emit = Callable[[Code, Simd, Mode, int, Any, Any], None]


@dataclass(frozen=True, slots=True)
class Shape:
    """How some number of rows meets a few row blocks at a time."""

    emit: Emit
    blocks: tuple[int, ...]  # row blocks at a time, descending to 1
    biased: bool = False  # wants codes + 128
    amx: bool = False


SINGLE = Shape(direct.emit_single, (WIDE, 1))
EXPANDED = Shape(emit_expanded, (WIDE, 1), biased=True)
RESIDENT = Shape(emit_resident, (1,))
TILES = Shape(tiles.emit_tiles, (WIDE, 1), amx=True)


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments, and what follows from them."""

    code: Code
    blocks: Any
    groups: Any
    step: Any  # bytes from one activation group of a row to the next
    n: Any
    out: Any
    out_stride: Any  # bytes from one row's totals to the next
    table: Any  # n addresses of activation rows
    pointers: tuple[Any, ...] = ()  # the same, in registers: the rows of a fixed-size shape

    def fixed(self, first: Any, rows: int) -> "Call":
        """The call for `rows` rows from row `first` on."""
        b = self.code.b
        table = b.add(self.table, b.mul(first, I64(8)))
        pointers = tuple(self.code.load(table, 8 * row, I64) for row in range(rows))
        out = b.add(self.out, b.mul(first, self.out_stride))
        return replace(self, pointers=pointers, out=out)

    def clear(self, simd: Simd, vectors: int) -> None:
        """Zero `vectors` vectors of every row's totals."""
        code, zero = self.code, self.code.constant(simd.floats, 0.0)

        def one_row(row: Any, carried: list[Any]) -> list[Any]:
            for vector in range(vectors):
                code.store(zero, carried[0], vector * simd.nbytes)
            return [code.b.add(carried[0], self.out_stride)]

        code.loop(I64(0), self.n, 1, [self.out], one_row)


def build(make_simd: Callable[[Code], Simd], mode: Mode, shape: Shape) -> str:
    """LLVM IR of `rows16`."""
    code = Code("rows16", ARGUMENTS)
    block, blocks, groups, acts, stride, step, index, n, out = code.arguments
    table = code.stack(8 * MAX_ROWS)
    b = code.b

    def address(row: Any, carried: list[Any]) -> list[Any]:
        number = b.sext(code.load(b.add(index, b.mul(row, I64(4))), 0, I32), I64)
        code.store(b.add(acts, b.mul(number, stride)), b.add(table, b.mul(row, I64(8))), 0)
        return []

    code.loop(I64(0), n, 1, [], address)
    call = Call(code, blocks, groups, step, n, out, b.mul(blocks, I64(4 * ROWS)), table)
    simd = make_simd(code)
    if mode is BF16:
        _in_fours(code, simd, mode, block, call)
    else:
        _by_count(code, simd, mode, shape, block, call)
    return code.text()


def _by_count(code: Code, simd: Simd, mode: Mode, shape: Shape, block: Any, call: Call) -> None:
    def few(rows: int) -> Callable[[], None]:
        def emit() -> None:
            fixed = call.fixed(I64(0), rows)
            direct.emit_direct(code, simd, mode, rows, block, fixed)

        return emit

    def many() -> None:
        if shape.amx:
            tiles.configure(code)
        _block_by_block(code, simd, mode, shape, block, call)
        if shape.amx:
            tiles.release(code)

    def single() -> None:
        _block_by_block(code, simd, mode, SINGLE, block, call.fixed(I64(0), 1))

    cases = {1: single, **{rows: few(rows) for rows in range(2, direct.MAX_ROWS + 1)}}
    code.switch(call.n, cases, many)


def _block_by_block(
    code: Code, simd: Simd, mode: Mode, shape: Shape, block: Any, call: Call
) -> None:
    """All row blocks, as many at a time as the shape can, then the rest."""
    b = code.b
    block_bytes = b.mul(call.groups, I64(STRIDE))
    done: Any = I64(0)
    for each in shape.blocks:
        end = b.mul(b.sdiv(call.blocks, I64(each)), I64(each))

        def some_blocks(at: Any, carried: list[Any], each: int = each) -> list[Any]:
            out = b.add(call.out, b.mul(at, I64(4 * ROWS)))
            part = b.add(block, b.mul(at, block_bytes))
            shape.emit(code, simd, mode, each, part, replace(call, out=out))
            return []

        def run(done: Any = done, end: Any = end, each: int = each) -> None:
            code.loop(done, end, each, [], some_blocks)

        code.unless_empty(b.sub(end, done), run)
        done = end


def _in_fours(code: Code, simd: Simd, mode: Mode, block: Any, call: Call) -> None:
    b = code.b
    fours = b.mul(b.sdiv(call.n, I64(4)), I64(4))

    def some_rows(rows: int) -> Callable[[Any, list[Any]], list[Any]]:
        def emit(first: Any, carried: list[Any]) -> list[Any]:
            emit_exact(code, simd, mode, rows, block, call.fixed(first, rows))
            return []

        return emit

    code.unless_empty(fours, lambda: _run(code, I64(0), fours, 4, some_rows(4)))
    rest = b.sub(call.n, fours)
    code.unless_empty(rest, lambda: _run(code, fours, call.n, 1, some_rows(1)))


def _run(code: Code, start: Any, end: Any, step: int, body: Any) -> None:
    code.loop(start, end, step, [], body)
