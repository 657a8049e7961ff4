"""The arithmetic that the kernels share: exp, silu, and how 32 values become an encoded group.

Each operation is rounded to float32 on its own (design §4.1): kernels are compiled without fusion,
and division is `div_rn`, because Triton's `/` is an approximation on a GPU. How a row is encoded,
by mode and by the kernel that reads it:

    words   int8, int16   int32 [row, group, plane, 16]; word 4 j + 2 h + i of a plane is
                          code[8 j + 4 h + i + 2] + 65536 * code[8 j + 4 h + i]; h, i are 0, 1
    bytes   int8, int16   int8 [row, plane, group, 32]
    floats  bf16          float32 [row, group, 32], rounded to bf16

with float32 scales and int32 8 * sum(codes), both [row, group]. int16 has two planes, 256 * first +
second. Words are for decode.py, which multiplies pairs of codes at a time.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN201, N803, N806 (Triton compiles these; constants are its capitals)

import triton
import triton.language as tl

ROUND = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it rounds to an integer, half to even
ROUND_BITS = tl.constexpr(0x4B400000)
MAGNITUDE = tl.constexpr(0x7FFFFFFF)
INFINITY_BITS = tl.constexpr(0x7F800000)
EXP_LIMIT = tl.constexpr(87.0)


@triton.jit
def exp(x):
    """e^x for |x| <= 87, with the operations of cpu_experts/numerics.py."""
    rounded = x * 1.44269504 + ROUND
    n = rounded - ROUND
    r = (x - n * 0.693359375) - n * -2.12194440e-4
    p = r * 1.9875691500e-4 + 1.3981999507e-3
    p = p * r + 8.3334519073e-3
    p = p * r + 4.1665795894e-2
    p = p * r + 1.6666665459e-1
    p = p * r + 5.0000001201e-1
    p = (p * r * r + r) + 1.0
    exponent = rounded.to(tl.int32, bitcast=True) - (ROUND_BITS - 127)
    return p * (exponent << 23).to(tl.float32, bitcast=True)


@triton.jit
def silu(gate):
    """gate / (1 + e^-gate); NaN stays NaN because comparisons with it are false."""
    gate = tl.where(gate < -EXP_LIMIT, -EXP_LIMIT, gate)
    limited = tl.where(gate > EXP_LIMIT, EXP_LIMIT, gate)
    return tl.div_rn(gate, exp(0.0 - limited) + 1.0)


@triton.jit
def quantise(values, LARGEST: tl.constexpr):
    """f32 [n, 32] -> int32 codes [n, 32], f32 scales [n]; see cpu_experts/numerics.py."""
    bits = values.to(tl.int32, bitcast=True) & MAGNITUDE
    largest = tl.max(bits, axis=1)  # of non-negative floats: integers in the same order
    scale = tl.div_rn(
        largest.to(tl.float32, bitcast=True), tl.full(largest.shape, LARGEST, tl.float32)
    )
    scale = tl.where(largest >= INFINITY_BITS, float("nan"), scale)
    live = scale > 0.0
    quotient = tl.div_rn(values, tl.where(live, scale, 1.0)[:, None])
    code = (quotient + ROUND).to(tl.int32, bitcast=True) - ROUND_BITS
    code = tl.minimum(tl.maximum(code, -LARGEST), LARGEST)
    return tl.where(live[:, None], code, 0), scale


@triton.jit
def round_bf16(values):
    """f32 -> f32 with bf16's precision, half to even; NaN stays NaN."""
    bits = values.to(tl.int32, bitcast=True)
    rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) & -65536
    return tl.where(values == values, rounded.to(tl.float32, bitcast=True), values)


@triton.jit
def as_words(plane):
    """Signed bytes as int32 [n, 32] -> the words of a plane, int32 [n, 16]."""
    n: tl.constexpr = plane.shape[0]
    pairs = tl.reshape(plane, (n, 8, 2, 2))  # codes of a word lie two apart
    factor = tl.where(tl.arange(0, 2) == 0, 65536, 1)[None, None, :, None]
    return tl.reshape(tl.sum(pairs * factor, axis=2), (n, 16))


@triton.jit
def store_plane(target, plane, row, group, at: tl.constexpr, GROUPS, PLANES, WORDS, live):
    """Write one plane of n groups: `row` and `group` are int64 and int32 [n], `live` masks them."""
    if WORDS:
        start = ((row * GROUPS + group) * PLANES + at) * 16
        pointers = target + start[:, None] + tl.arange(0, 16)[None, :]
        tl.store(pointers, as_words(plane), mask=live[:, None])
    else:
        start = ((row * PLANES + at) * GROUPS + group) * 32
        pointers = target + start[:, None] + tl.arange(0, 32)[None, :]
        tl.store(pointers, plane.to(tl.int8), mask=live[:, None])


@triton.jit
def store_encoded(
    codes,
    scales,
    offsets,
    values,
    row,
    group,
    live,
    GROUPS: tl.constexpr,
    PLANES: tl.constexpr,
    WORDS: tl.constexpr,
):
    """Encode f32 values [n, 32] and write them as groups `group` of rows `row`, where `live`.

    PLANES is 1 for int8, 2 for int16, 0 for bf16, which has neither scales nor offsets.
    """
    if PLANES == 0:
        start = (row * GROUPS + group) * 32
        pointers = codes + start[:, None] + tl.arange(0, 32)[None, :]
        tl.store(pointers, round_bf16(values), mask=live[:, None])
    else:
        LARGEST: tl.constexpr = 127 if PLANES == 1 else 127 * 256 + 127
        code, scale = quantise(values, LARGEST)
        at = row * GROUPS + group
        tl.store(scales + at, scale, mask=live)
        tl.store(offsets + at, tl.sum(code, axis=1) * 8, mask=live)
        if PLANES == 1:
            store_plane(codes, code, row, group, 0, GROUPS, PLANES, WORDS, live)
        else:
            high = (code + 128) >> 8
            store_plane(codes, high, row, group, 0, GROUPS, PLANES, WORDS, live)
            low = code - high * 256
            store_plane(codes, low, row, group, 1, GROUPS, PLANES, WORDS, live)
