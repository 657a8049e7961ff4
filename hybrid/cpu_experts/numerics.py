"""The arithmetic that every kernel shares, written once over SIMD values.

Each operation is rounded to float32 on its own and nothing is fused, so plain numpy float32
reproduces every bit. An activation row is stored as its groups of 32, one after another:

    int8   32 codes (1 B each) | scale (float32) | 8 * sum of codes (int32)        40 B a group
    bf16   32 values rounded to bf16, kept as float32                              128 B a group

int8: scale = max|x| / 127, code = round-half-even(x / scale) by true division. The sum is what
the nibbles' offset adds to a dot product: dot(nibble - 8, c) = dot(nibble, c) - 8 * sum(c).

Inputs that are not ordinary:
  zero group             scale 0, codes 0; also where max|x| / 127 rounds to 0 (max|x| < 9e-44)
  subnormal scale        x / scale may exceed 127: codes are clamped to +-127
  infinity or NaN        int8: the group's scale is NaN and its codes 0, so all outputs of that
                         token are NaN and no other token's; bf16: IEEE arithmetic takes its course
  silu(gate)             the gate is clamped to >= -87 and exp's argument to [-87, 87]: no overflow,
                         silu(-inf) = -1.4e-36, silu(+inf) = +inf, silu(NaN) = NaN
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN201 (numba infers the types)

import numpy as np

from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import float_of, store_f32, store_i32
from hybrid.cpu_experts.simd import (
    add,
    at_least,
    at_most,
    bit_and,
    bits_of,
    div,
    floats_of,
    load_f32x8,
    max_lane,
    max_signed,
    max_unsigned,
    min_signed,
    mul,
    shift_left,
    shift_right,
    splat_f32,
    splat_i32,
    store_f32x8,
    store_low_bytes,
    sub,
    sum_lanes,
    unless_nan,
)

INT8_GROUP_BYTES, BF16_GROUP_BYTES = 40, 128
SCALE_AT, OFFSET_AT = 32, 36  # inside an int8 group

_INFINITY_BITS = np.uint32(0x7F800000)
_LARGEST_CODE = np.float32(127.0)
_ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding it rounds to an integer, half to even
_ROUND_BITS = np.int32(0x4B400000)

_EXP_LIMIT = np.float32(87.0)  # exp(+-87) and 1 + exp(87) are normal float32 numbers
_LOG2_E = np.float32(1.44269504)
_LN2_HIGH = np.float32(0.693359375)  # 10 significant bits: its product with |n| < 128 is exact
_LN2_LOW = np.float32(-2.12194440e-4)
_EXP_C = tuple(
    np.float32(c)
    for c in (
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    )
)


@inlined
def exp(x):
    """e^x for |x| <= 87: Cody-Waite reduction and a degree-6 polynomial, 2 ulp."""
    rounded = add(mul(x, splat_f32(_LOG2_E)), splat_f32(_ROUND))
    n = sub(rounded, splat_f32(_ROUND))
    r = sub(sub(x, mul(n, splat_f32(_LN2_HIGH))), mul(n, splat_f32(_LN2_LOW)))
    p = splat_f32(_EXP_C[0])
    p = add(mul(p, r), splat_f32(_EXP_C[1]))
    p = add(mul(p, r), splat_f32(_EXP_C[2]))
    p = add(mul(p, r), splat_f32(_EXP_C[3]))
    p = add(mul(p, r), splat_f32(_EXP_C[4]))
    p = add(mul(p, r), splat_f32(_EXP_C[5]))
    p = add(add(mul(mul(p, r), r), r), splat_f32(np.float32(1.0)))
    exponent = sub(bits_of(rounded), splat_i32(np.int32(_ROUND_BITS - 127)))
    return mul(p, floats_of(shift_left(exponent, 23)))


@inlined
def silu(gate):
    """gate / (1 + e^-gate)."""
    gate = at_least(gate, splat_f32(-_EXP_LIMIT))
    limited = at_most(gate, splat_f32(_EXP_LIMIT))
    power = exp(sub(splat_f32(np.float32(0.0)), limited))
    return div(gate, add(splat_f32(np.float32(1.0)), power))


@inlined
def swiglu_group(gate, up):
    """Replace 32 floats at `gate` by silu(gate) * up."""
    for at in range(0, 128, 32):
        store_f32x8(gate, at, mul(silu(load_f32x8(gate, at)), load_f32x8(up, at)))


@inlined
def encode_int8(source, group):
    """Quantise 32 floats at `source` into the int8 group at `group`."""
    magnitude = splat_i32(np.int32(0x7FFFFFFF))
    largest = splat_i32(np.int32(0))
    for at in range(0, 128, 32):
        bits = bits_of(load_f32x8(source, at))
        largest = max_unsigned(largest, bit_and(bits, magnitude))
    largest_bits = max_lane(largest)
    scale = float_of(largest_bits) / _LARGEST_CODE
    total = splat_i32(np.int32(0))
    if largest_bits >= _INFINITY_BITS:
        scale = np.float32(np.nan)
    if scale > np.float32(0.0):
        for at in range(0, 128, 32):
            quotient = div(load_f32x8(source, at), splat_f32(scale))
            code = sub(bits_of(add(quotient, splat_f32(_ROUND))), splat_i32(_ROUND_BITS))
            code = max_signed(code, splat_i32(np.int32(-127)))
            code = min_signed(code, splat_i32(np.int32(127)))
            store_low_bytes(group, at // 4, code)
            total = add(total, code)
    else:
        for at in range(0, 128, 32):
            store_low_bytes(group, at // 4, total)
    store_f32(group + SCALE_AT, 0, scale)
    store_i32(group + OFFSET_AT, 0, np.int32(8 * sum_lanes(total)))


@inlined
def encode_bf16(source, group):
    """Round 32 floats at `source` to bf16, half to even; NaN stays NaN."""
    for at in range(0, 128, 32):
        value = load_f32x8(source, at)
        bits = bits_of(value)
        odd = bit_and(shift_right(bits, 16), splat_i32(np.int32(1)))
        rounded = add(bits, add(odd, splat_i32(np.int32(0x7FFF))))
        rounded = bit_and(rounded, splat_i32(np.int32(-65536)))
        store_f32x8(group, at, unless_nan(value, floats_of(rounded)))
