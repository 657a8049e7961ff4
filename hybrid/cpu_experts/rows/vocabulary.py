"""What the shapes say in vectors: nibbles, dot products of bytes, scales, the float epilogue.

A vector holds `lanes` output rows: 4 bytes of each as bytes, one int32 or float32 of each as
numbers. Two instructions multiply unsigned by signed bytes:

    vpmaddubsw   32 or 64 products, neighbours added to int16, saturating. A pair is at most
                 2 * 255 * 8 or 2 * 15 * 128, the 8 pairs of a group 32,640 or 30,720: neither
                 saturates nor wraps. vpmaddwd widens once a group
    vpdpbusd     the same with four neighbours, added to int32
"""

from collections.abc import Iterable, Sequence
from typing import Any

from hybrid.cpu_experts.record import GROUP_BYTES, LINE_BYTES
from hybrid.cpu_experts.rows.emit import F32, I8, I16, I32, Code, vector

LINES = 4  # of 64 B, in a group
STEPS = 8  # of 4 inputs, in a group


class Simd:
    """Vectors of `lanes` rows, and the byte products that one instruction makes."""

    def __init__(self, code: Code, lanes: int) -> None:
        self.code, self.lanes = code, lanes
        self.bytes = vector(I8, 4 * lanes)
        self.words = vector(I16, 2 * lanes)
        self.ints = vector(I32, lanes)
        self.floats = vector(F32, lanes)
        self.nbytes = 4 * lanes

    def nibbles(self, tile: Any, part: int, line: int) -> tuple[Any, Any]:
        """Inputs 8 line … 8 line + 3 and the next four, 0 … 15, of vector `part` of 16 rows."""
        b, mask = self.code.b, self.code.constant(self.ints, 0x0F0F0F0F)
        packed = self.code.load(tile, line * LINE_BYTES + part * self.nbytes, self.ints)
        high = b.and_(b.lshr(packed, self.code.constant(self.ints, 4)), mask)
        return b.bitcast(b.and_(packed, mask), self.bytes), b.bitcast(high, self.bytes)

    def scale(self, tile: Any, part: int) -> Any:
        """The weights' scales of the group, bf16 widened."""
        b = self.code.b
        at = GROUP_BYTES + part * self.nbytes // 2
        wide = b.zext(self.code.load(tile, at, vector(I16, self.lanes)), self.ints)
        return b.bitcast(b.shl(wide, self.code.constant(self.ints, 16)), self.floats)

    def codes(self, x: Any, offset: Any) -> Any:
        """Four activation bytes in every lane."""
        return self.code.b.bitcast(self.every(x, offset, I32), self.bytes)

    def every(self, x: Any, offset: Any, kind: Any) -> Any:
        """One int32 or float32 of an activation group in every lane."""
        return self.code.splat(self.code.load(x, offset, kind), self.lanes)

    def scaled(self, total: Any, dot: Any, scale: Any) -> Any:
        """total + float(dot) * scale, each operation rounded on its own."""
        b = self.code.b
        return b.fadd(total, b.fmul(b.sitofp(dot, self.floats), scale))

    def begin(self) -> Any:
        """An empty sum of products."""
        raise NotImplementedError

    def add_products(self, total: Any, unsigned: Any, signed: Any) -> Any:
        """total + products; the sum is of the instruction's own width."""
        raise NotImplementedError

    def sum_products(self, total: Any, unsigned: Iterable[Any], signed: Iterable[Any]) -> Any:
        """total + all products."""
        for pair in zip(unsigned, signed, strict=True):
            total = self.add_products(total, *pair)
        return total

    def widened(self, total: Any, factor: int) -> Any:
        """factor * total as int32."""
        raise NotImplementedError

    @property
    def bias_kind(self) -> Any:
        """The type of `bias`."""
        raise NotImplementedError

    def bias(self, weights: Sequence[Any]) -> Any:
        """128 * sum of signed weights, in the width of a sum: what biased codes add."""
        b = self.code.b
        total = weights[0]
        for each in weights[1:]:
            total = b.add(total, each)  # |sum| <= 8 * 8: bytes hold it
        return self.add_products(self.begin(), self.code.constant(self.bytes, 128), total)


class Words(Simd):
    """vpmaddubsw, vpaddw, vpmaddwd."""

    def __init__(self, code: Code, lanes: int) -> None:
        super().__init__(code, lanes)
        self._kept: dict[int, Any] = {}  # factor -> address of a vector of it

    @property
    def bias_kind(self) -> Any:
        """See Simd."""
        return self.words

    def begin(self) -> Any:
        """See Simd."""
        return None

    def add_products(self, total: Any, unsigned: Any, signed: Any) -> Any:
        """See Simd."""
        pairs = self._products(unsigned, signed)
        return pairs if total is None else self.code.b.add(total, pairs)

    def sum_products(self, total: Any, unsigned: Iterable[Any], signed: Iterable[Any]) -> Any:
        """See Simd. All products come first: so LLVM finds registers for all that is used again."""
        products = [self._products(*pair) for pair in zip(unsigned, signed, strict=True)]
        result = self.code.b.add(products[0], total)
        for each in products[1:]:
            result = self.code.b.add(result, each)
        return result

    def _factors(self, factor: int) -> Any:
        """A factor in every word; from memory, because 16 registers have better uses."""
        code = self.code
        if factor not in self._kept:
            memory = code.stack(self.nbytes)
            with code.b.goto_entry_block():
                self._kept[factor] = code.opaque(memory)
                code.store(code.constant(self.words, factor), self._kept[factor], 0, self.nbytes)
        return code.load(self._kept[factor], 0, self.words, self.nbytes)

    def _products(self, unsigned: Any, signed: Any) -> Any:
        name = "avx2.pmadd.ub.sw" if self.lanes == 8 else "avx512.pmaddubs.w.512"
        return self.code.call(f"llvm.x86.{name}", self.words, unsigned, signed)

    def widened(self, total: Any, factor: int) -> Any:
        """See Simd."""
        name = "avx2.pmadd.wd" if self.lanes == 8 else "avx512.pmaddw.d.512"
        factors = self._factors(factor)
        return self.code.call(f"llvm.x86.{name}", self.ints, total, factors)


class Vnni(Simd):
    """vpdpbusd."""

    @property
    def bias_kind(self) -> Any:
        """See Simd."""
        return self.ints

    def begin(self) -> Any:
        """See Simd."""
        return self.code.constant(self.ints, 0)

    def add_products(self, total: Any, unsigned: Any, signed: Any) -> Any:
        """See Simd."""
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}"
        return self.code.call(name, self.ints, total, unsigned, signed)

    def widened(self, total: Any, factor: int) -> Any:
        """See Simd."""
        shift = self.code.constant(self.ints, factor.bit_length() - 1)
        return total if factor == 1 else self.code.b.shl(total, shift)
