"""The micro-kernel: a few tokens times one tile of 16 outputs (or four), accumulators in registers.

    out[token][16 lanes] += sum over inputs of  weights[input][16 lanes] * x[token][input]

lane = output, so there is no horizontal sum; an activation is broadcast. For every output the sum
runs over the inputs in ascending order, one fused multiply-add each, and continues from what `out`
holds. That order does not depend on how many tokens or tiles are computed together, so neither do
the bits: a token alone, in a block, or on another thread gives the same result.

Weights are bf16 in one of two layouts, both widened by a shift or a mask:

    paired   a line of 64 B holds 2 inputs: lane r = output r, low half input 2j, high half 2j + 1
    plain    a line holds 1 input of 16 consecutive outputs, 32 B; lines are `row_bytes` apart

The vector operations are LLVM's own: it splits 16 lanes into what the machine has, and a fused
multiply-add is exact on every machine (in software, slowly, on a CPU older than FMA3), so all
instruction sets give the same bits.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hybrid.cpu_experts.native import element

LANES = 16
LINE_BYTES = 64
MAX_TOKENS = 6  # 6 x 16 lanes fill 12 of AVX2's 16 registers
PREFETCH_LINES = 32  # 2 KiB ahead: 10.7 -> 13.8 GB/s for 4 tokens on one Zen 3 core
MAX_TILES = 4  # for one token: enough independent sums to hide the latency of an FMA

_WORD, _BYTE, _FLOAT = ir.IntType(64), ir.IntType(8), ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)


def _panel(tokens: int, tiles: int, lines: Any) -> Any:
    """Build panel(weights, stride, x, x_bytes, steps, out, out_bytes); steps >= 1, all in bytes."""

    @intrinsic
    def panel(
        typing: Any, weights: Any, stride: Any, x: Any, x_bytes: Any, steps: Any, out: Any, ob: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            weights, stride, x, x_bytes, steps, out, out_bytes = args
            sums = [
                _pointer(builder, out, _FLOATS, (token, out_bytes), (tile, _WORD(LINE_BYTES)))
                for token in range(tokens)
                for tile in range(tiles)
            ]
            start = [_load(builder, pointer) for pointer in sums]
            rows = [_pointer(builder, x, _FLOAT, (token, x_bytes)) for token in range(tokens)]

            def step(index: Any, totals: list[Any]) -> list[Any]:
                totals = list(totals)
                wide = [lines(builder, weights, stride, tile, index) for tile in range(tiles)]
                for part in range(len(wide[0])):
                    for token, row in enumerate(rows):
                        at = builder.add(builder.mul(index, _WORD(len(wide[0]))), _WORD(part))
                        value = _splat(builder, builder.load(builder.gep(row, [at])))
                        for tile in range(tiles):
                            slot = token * tiles + tile
                            totals[slot] = _fma(builder, wide[tile][part], value, totals[slot])
                return totals

            for pointer, total in zip(sums, _loop(builder, steps, start, step), strict=True):
                builder.store(total, pointer).align = 4
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), codegen

    return panel


def _paired(builder: Any, weights: Any, stride: Any, tile: int, index: Any) -> list[Any]:
    """Inputs 2 * index and 2 * index + 1 of a tile; tiles are `stride` bytes apart."""
    line = _pointer(builder, weights, _INTS, (tile, stride))
    _prefetch(builder, builder.gep(line, [builder.add(index, _WORD(PREFETCH_LINES))]))
    bits = _load(builder, builder.gep(line, [index]))
    low = builder.shl(bits, ir.Constant(_INTS, [16] * LANES))
    high = builder.and_(bits, ir.Constant(_INTS, [0xFFFF0000] * LANES))
    return [builder.bitcast(half, _FLOATS) for half in (low, high)]


def _plain(builder: Any, weights: Any, stride: Any, tile: int, index: Any) -> list[Any]:
    """Input `index`; inputs are `stride` bytes apart."""
    at = builder.add(weights, builder.mul(index, stride))
    bits = _load(builder, _pointer(builder, at, _HALVES, (tile, _WORD(LINE_BYTES // 2))))
    wide = builder.shl(builder.zext(bits, _INTS), ir.Constant(_INTS, [16] * LANES))
    return [builder.bitcast(wide, _FLOATS)]


def _loop(builder: Any, steps: Any, start: list[Any], step: Any) -> list[Any]:
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
    index.add_incoming(_WORD(0), before)
    index.add_incoming(following, body)
    for phi, first, result in zip(totals, start, results, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(result, body)
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
    value.align = 2
    return value


def _prefetch(builder: Any, pointer: Any) -> None:
    """Ask for a line to be read into all caches; past the end of a matrix it does nothing."""
    flag = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), flag, flag, flag])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    at = builder.bitcast(pointer, _BYTE.as_pointer())
    builder.call(prefetch, [at, flag(0), flag(3), flag(1)])  # read, keep, data


def _splat(builder: Any, value: Any) -> Any:
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTS, None))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    return builder.call(fma, [a, b, c])


@intrinsic
def stack_lines(typing: Any) -> Any:
    """Address of MAX_TOKENS lines of 16 floats on the stack, for sums on their way out."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lines = ir.ArrayType(_FLOATS, MAX_TOKENS)
        return builder.ptrtoint(cgutils.alloca_once(builder, lines), _WORD)

    return types.intp(), codegen


four_tiles = _panel(1, MAX_TILES, _paired)
PAIRED = tuple(_panel(tokens, 1, _paired) for tokens in range(1, MAX_TOKENS + 1))
PLAIN = tuple(_panel(tokens, 1, _plain) for tokens in range(1, MAX_TOKENS + 1))
