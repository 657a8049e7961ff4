"""Many activation rows, weights expanded into L1: signed bytes that each row meets as an operand.

    for each group:
      expand     64 output rows x 32 inputs to nibble - 8, with -128 * their sums and their scales
      each row   8 registers hold its 32 codes, biased to unsigned; every other operand is in L1

An operand in memory costs no instruction of its own, so 256 multiply-adds on AVX2 take 8 products,
8 additions, 5 for the epilogue and one store, and a quarter of what a row costs once. The same
with weights in registers needs 8 broadcasts more (docs/log.md).
"""

from typing import Any

from hybrid.cpu_experts.record import ROWS, STRIDE
from hybrid.cpu_experts.rows.emit import F32, I64, Code
from hybrid.cpu_experts.rows.modes import Mode
from hybrid.cpu_experts.rows.stream import prefetch_group
from hybrid.cpu_experts.rows.vocabulary import LINES, STEPS, Simd

AHEAD = 2 * STRIDE  # bytes: a group takes long here, and L1 is full of what is used again
REACH = 128  # bytes on either side of a register that an instruction reaches with a short offset


class Expanded:
    """`blocks` row blocks of one group in L1."""

    def __init__(self, code: Code, simd: Simd, blocks: int) -> None:
        self._code, self._simd = code, simd
        self.parts = ROWS // simd.lanes
        self.vectors = blocks * self.parts
        self._weights = self._bases(STEPS)
        self._facts = self._bases(2)

    def _bases(self, each: int) -> list[tuple[Any, int]]:
        """Register and short offset of each vector's first of `each` neighbours."""
        size = each * self._simd.nbytes
        fit = max(1, 4 * REACH // size)
        memory = self._code.stack(self.vectors * size)
        places = []
        for vector in range(self.vectors):
            if vector % fit == 0:
                address = self._code.b.add(memory, I64(vector * size + REACH))
                base = self._code.opaque(address)
            places.append((base, vector % fit * size - REACH))
        return places

    def fill(self, tile: Any, block: int) -> None:
        """Expand the group at `tile`, which belongs to row block `block`."""
        code, simd = self._code, self._simd
        b, eight = code.b, code.constant(simd.bytes, 8)
        for part in range(self.parts):
            vector = block * self.parts + part
            base, at = self._weights[vector]
            weights = []
            for line in range(LINES):
                weights += [b.sub(half, eight) for half in simd.nibbles(tile, part, line)]
            for step, weight in enumerate(weights):
                code.store(weight, base, at + step * simd.nbytes, simd.nbytes)
            base, at = self._facts[vector]
            bias = simd.bias(weights)
            code.store(b.sub(code.constant(bias.type, 0), bias), base, at, simd.nbytes)
            code.store(simd.scale(tile, part), base, at + simd.nbytes, simd.nbytes)

    def dot(self, vector: int, codes: list[Any]) -> Any:
        """Sum of weight * code of 32 inputs, codes biased."""
        simd, (facts, bias_at) = self._simd, self._facts[vector]
        kind = simd.bias_kind
        total = self._code.load(facts, bias_at, kind, simd.nbytes)
        base, at = self._weights[vector]
        steps = range(at, at + STEPS * simd.nbytes, simd.nbytes)
        weights = (self._code.load(base, step, simd.bytes, simd.nbytes) for step in steps)
        return simd.sum_products(total, codes, weights)  # loads each where it is multiplied

    def scale(self, vector: int) -> Any:
        """The weights' scales."""
        base, at = self._facts[vector]
        at += self._simd.nbytes
        return self._code.load(base, at, self._simd.floats, self._simd.nbytes)


def emit_expanded(code: Code, simd: Simd, mode: Mode, blocks: int, block: Any, call: Any) -> None:
    """`blocks` row blocks from `block` on, for all rows; totals are kept in `out`."""
    b = code.b
    block_bytes = b.mul(call.groups, I64(STRIDE))
    weights = Expanded(code, simd, blocks)
    high = code.stack(weights.vectors * simd.nbytes) if mode.planes == 2 else None

    def group(index: Any, carried: list[Any]) -> list[Any]:
        tile, offset = carried
        for number in range(blocks):
            at = b.add(tile, b.mul(block_bytes, I64(number)))
            prefetch_group(code, at, AHEAD)
            weights.fill(at, number)

        def one_row(row: Any, inner: list[Any]) -> list[Any]:
            pointer, out = inner
            x = b.add(code.load(pointer, 0, I64), offset)
            dots = _dots(code, simd, mode, weights, x, high)
            scale = simd.every(x, mode.scale_at, F32)
            for vector in range(weights.vectors):
                at = vector * simd.nbytes - REACH
                dot = dots(vector)
                both = b.fmul(scale, weights.scale(vector))
                total = code.load(out, at, simd.floats)
                code.store(simd.scaled(total, dot, both), out, at)
            return [b.add(pointer, I64(8)), b.add(out, call.out_stride)]

        start = [call.table, b.add(call.out, I64(REACH))]
        code.loop(I64(0), call.n, 1, start, one_row)
        return [b.add(tile, I64(STRIDE)), b.add(offset, call.step)]

    call.clear(simd, weights.vectors)
    code.loop(I64(0), call.groups, 1, [block, I64(0)], group)


def _dots(code: Code, simd: Simd, mode: Mode, weights: Expanded, x: Any, high: Any) -> Any:
    """vector -> int32 dot product; the high planes of all vectors are computed first and parked."""

    def codes(plane: int) -> list[Any]:
        return [simd.codes(x, 32 * plane + 4 * step) for step in range(STEPS)]

    if mode.planes == 1:
        only = codes(0)
        return lambda vector: simd.widened(weights.dot(vector, only), 1)
    first = codes(0)
    for vector in range(weights.vectors):
        part = simd.widened(weights.dot(vector, first), 256)
        code.store(part, high, vector * simd.nbytes, simd.nbytes)
    second = codes(1)

    def both(vector: int) -> Any:
        low = simd.widened(weights.dot(vector, second), 1)
        return code.b.add(low, code.load(high, vector * simd.nbytes, simd.ints, simd.nbytes))

    return both
