"""The micro-kernels: up to six tokens times tiles of 16 outputs, accumulators in registers.

    out[token][16 lanes] += sum over inputs of  weights[input][16 lanes] * x[token][input]

lane = output, so there is no horizontal sum; an activation is broadcast. For every output the sum
runs over the inputs in ascending order, one fused multiply-add each, and continues from what `out`
holds. That order does not depend on how many tokens or tiles are computed together or where a sum
is interrupted, so neither do the bits: a token alone, in a block, or on another thread gives the
same.

A tile of weights is one sequential stream in one of three layouts:

    paired  a step is a line of 64 B, 2 inputs: 16 lanes of 4 bytes, low half input 2 j, high half
            input 2 j + 1, bf16
    coded   a step is a group of 32 inputs: 16 int8 codes for each input, then 16 bf16 scales. The
            group's sum of code * x starts at zero, ascending; then out = fma(sum, scale, out)
    plain   a step is 1 input of 16 consecutive outputs, bf16; steps are `stride` bytes apart

One token takes four tiles at a time and two take two: an accumulator waits four cycles for each of
its fused multiply-adds, and eight of them keep both multipliers busy. Tiles are `stride` apart.

The vector operations are LLVM's own: it splits 16 lanes into what the machine has, and a fused
multiply-add is exact on every machine (in software, slowly, on a CPU older than FMA3), so all
instruction sets give the same bits.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hybrid.cpu_experts.native import element

LANES = 16
LINE_BYTES = 64
GROUP = 32  # inputs that share a scale
GROUP_BYTES = (GROUP + 2) * LANES
MAX_TOKENS = 6  # 6 x 16 lanes fill 12 of AVX2's 16 registers
MAX_TILES = 4
PREFETCH_BYTES = 2048  # of each tile: 10.7 -> 13.8 GB/s for 4 tokens on one Zen 3 core

_WORD, _BYTE, _FLOAT = ir.IntType(64), ir.IntType(8), ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)
_BYTES = ir.VectorType(_BYTE, LANES)

Values = list[Any]


def _panel(tokens: int, tiles: int, body: Callable[..., None]) -> Any:
    """Build panel(weights, stride, x, x_bytes, steps, out, out_bytes); steps >= 1, all in bytes."""

    @intrinsic
    def panel(
        typing: Any, weights: Any, stride: Any, x: Any, x_bytes: Any, steps: Any, out: Any, ob: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            weights, stride, x, x_bytes, steps, out, out_bytes = args
            rows = [_pointer(builder, x, _FLOAT, (token, x_bytes)) for token in range(tokens)]
            sums = [
                _pointer(builder, out, _FLOATS, (token, out_bytes), (tile, _WORD(LINE_BYTES)))
                for token in range(tokens)
                for tile in range(tiles)
            ]
            body(builder, weights, stride, rows, steps, sums)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), codegen

    return panel


def _paired(
    builder: Any, weights: Any, stride: Any, rows: Values, steps: Any, sums: Values
) -> None:
    """A line of each tile a step."""
    starts = _starts(builder, weights, stride, len(sums) // len(rows))

    def step(index: Any, totals: Values) -> Values:
        wide = _two_inputs(builder, starts, builder.mul(index, _WORD(LINE_BYTES)))
        return _multiply(builder, wide, rows, builder.mul(index, _WORD(2)), totals)

    _sum(builder, steps, sums, step)


def _plain(builder: Any, weights: Any, stride: Any, rows: Values, steps: Any, sums: Values) -> None:
    """One input of one tile a step."""

    def step(index: Any, totals: Values) -> Values:
        line = builder.add(weights, builder.mul(index, stride))
        return _multiply(builder, [[_widened(builder, line)]], rows, index, totals)

    _sum(builder, steps, sums, step)


def _coded(builder: Any, weights: Any, stride: Any, rows: Values, steps: Any, sums: Values) -> None:
    """A group of each tile a step."""
    tiles = len(sums) // len(rows)
    starts = _starts(builder, weights, stride, tiles)

    def step(index: Any, none: Values) -> Values:
        at = builder.mul(index, _WORD(GROUP_BYTES))
        groups = [builder.add(start, at) for start in starts]
        inputs = builder.mul(index, _WORD(GROUP))

        def four(index: Any, totals: Values) -> Values:
            wide = _four_inputs(builder, groups, builder.mul(index, _WORD(LINE_BYTES)))
            first = builder.add(inputs, builder.mul(index, _WORD(4)))
            return _multiply(builder, wide, rows, first, totals)

        zero = [ir.Constant(_FLOATS, [0.0] * LANES)] * len(sums)
        totals = _loop(builder, _WORD(GROUP // 4), zero, four)
        scales = [_widened(builder, builder.add(g, _WORD(GROUP * LANES))) for g in groups]
        for slot, pointer in enumerate(sums):
            above = _load(builder, pointer)
            _store(builder, _fma(builder, totals[slot], scales[slot % tiles], above), pointer)
        return none

    _loop(builder, steps, [], step)


def _starts(builder: Any, weights: Any, stride: Any, tiles: int) -> Values:
    return [builder.add(weights, builder.mul(_WORD(tile), stride)) for tile in range(tiles)]


def _sum(builder: Any, steps: Any, sums: Values, step: Callable[[Any, Values], Values]) -> None:
    """Continue the sums in registers."""
    start = [_load(builder, pointer) for pointer in sums]
    for pointer, total in zip(sums, _loop(builder, steps, start, step), strict=True):
        _store(builder, total, pointer)


def _multiply(
    builder: Any, wide: list[Values], rows: Values, first: Any, totals: Values
) -> Values:  # fmt: skip
    """totals[token, tile] += wide[input][tile] * x[token][first + input], input by input."""
    totals = list(totals)
    for part, weights in enumerate(wide):
        at = builder.add(first, _WORD(part))
        for token, row in enumerate(rows):
            value = _splat(builder, builder.load(builder.gep(row, [at])))
            for tile, weight in enumerate(weights):
                slot = token * len(weights) + tile
                totals[slot] = _fma(builder, weight, value, totals[slot])
    return totals


def _two_inputs(builder: Any, starts: Values, at: Any) -> list[Values]:
    """weights[input][tile] of one line of each tile."""
    bits = []
    for start in starts:
        line = builder.add(start, at)
        _prefetch(builder, builder.add(line, _WORD(PREFETCH_BYTES)))
        bits.append(_load(builder, _pointer(builder, line, _INTS)))
    low = [builder.shl(b, ir.Constant(_INTS, [16] * LANES)) for b in bits]
    high = [builder.and_(b, ir.Constant(_INTS, [0xFFFF0000] * LANES)) for b in bits]
    return [[builder.bitcast(half, _FLOATS) for half in part] for part in (low, high)]


def _four_inputs(builder: Any, groups: Values, at: Any) -> list[Values]:
    """weights[input][tile] of one line of codes of each tile."""
    lines = [builder.add(group, at) for group in groups]
    for line in lines:
        _prefetch(builder, builder.add(line, _WORD(PREFETCH_BYTES)))
    return [[_code(builder, line, part) for line in lines] for part in range(4)]


def _code(builder: Any, line: Any, part: int) -> Any:
    codes = _load(builder, _pointer(builder, line, _BYTES, (part, _WORD(LANES))))
    return builder.sitofp(builder.sext(codes, _INTS), _FLOATS)


def _widened(builder: Any, line: Any) -> Any:
    """16 consecutive bf16."""
    bits = builder.zext(_load(builder, _pointer(builder, line, _HALVES)), _INTS)
    return builder.bitcast(builder.shl(bits, ir.Constant(_INTS, [16] * LANES)), _FLOATS)


def _loop(builder: Any, steps: Any, start: Values, step: Callable[[Any, Values], Values]) -> Values:
    """Emit totals = step(index, totals) for index in 0…steps-1."""
    before = builder.block
    body = builder.append_basic_block("panel")
    after = builder.append_basic_block("panel.end")
    builder.branch(body)
    builder.position_at_end(body)
    index = builder.phi(_WORD)
    totals = [builder.phi(_FLOATS) for _ in start]
    results = step(index, totals)
    following = builder.add(index, _WORD(1))
    last = builder.block  # of the body: a step may hold loops
    index.add_incoming(_WORD(0), before)
    index.add_incoming(following, last)
    for phi, first, result in zip(totals, start, results, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(result, last)
    builder.cbranch(builder.icmp_signed("<", following, steps), body, after)
    builder.position_at_end(after)
    return list(results)


def _pointer(builder: Any, base: Any, kind: Any, *offsets: tuple[int, Any]) -> Any:
    """Pointer to `kind` at base + sum of count * bytes."""
    at = element(builder, base, _WORD(0), _BYTE)
    for count, size in offsets:
        at = builder.gep(at, [builder.mul(_WORD(count), size)])
    return builder.bitcast(at, kind.as_pointer())


def _load(builder: Any, pointer: Any) -> Any:
    value = builder.load(pointer)
    value.align = 1
    return value


def _store(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, pointer).align = 4


def _prefetch(builder: Any, address: Any) -> None:
    """Ask for a line to be read into all caches; past the end of a matrix it does nothing."""
    pointer = builder.inttoptr(address, _BYTE.as_pointer())
    flag = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), flag, flag, flag])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(prefetch, [pointer, flag(0), flag(3), flag(1)])  # read, keep, data


def _splat(builder: Any, value: Any) -> Any:
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTS, None))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    return builder.call(fma, [a, b, c])


SHAPES = [(tokens, 1) for tokens in range(1, MAX_TOKENS + 1)] + [(2, 2), (1, MAX_TILES)]
PAIRED = tuple(_panel(tokens, tiles, _paired) for tokens, tiles in SHAPES)
CODED = tuple(_panel(tokens, tiles, _coded) for tokens, tiles in SHAPES)
PLAIN = tuple(_panel(tokens, 1, _plain) for tokens in range(1, MAX_TOKENS + 1))
