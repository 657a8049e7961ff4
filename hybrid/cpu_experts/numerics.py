"""The arithmetic that every kernel shares, written once over SIMD values.

Each operation is rounded to float32 on its own and nothing is fused, so plain numpy float32
reproduces every bit. An activation row is stored as its groups of 32, one after another, as
rows/modes.py draws them.

int8, int16: scale = max|x| / L with L = 127 or 32,639 = 127 * 256 + 127, code = round-half-even(x /
scale) by true division; an int16 code is 256 * high + low with both bytes signed. The sum is what
the nibbles' offset adds to a dot product: dot(nibble - 8, c) = dot(nibble, c) - 8 * sum(c).

Inputs that are not ordinary:
  zero group             scale 0, codes 0; also where max|x| / L rounds to 0 (int8: max|x| < 9e-44)
  subnormal scale        x / scale may exceed L: codes are clamped to +-L
  infinity or NaN        integers: the group's scale is NaN and its codes 0, so all outputs of that
                         token are NaN and no other token's; bf16: IEEE arithmetic takes its course
  silu(gate)             the gate is clamped to >= -87 and exp's argument to [-87, 87]: no overflow,
                         silu(-inf) = -1.4e-36, silu(+inf) = +inf, silu(NaN) = NaN
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN201, ANN202 (numba infers the types)

import numpy as np

from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import float_of, store_f32, store_i32
from hybrid.cpu_experts.rows.modes import INT8, INT16
from hybrid.cpu_experts.simd import (
    add,
    at_least,
    at_most,
    bit_and,
    bit_xor,
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

_INT8_SCALE, _INT8_OFFSET = INT8.scale_at, INT8.offset_at
_INT16_SCALE, _INT16_OFFSET = INT16.scale_at, INT16.offset_at
_INFINITY_BITS = np.uint32(0x7F800000)
_LARGEST_INT8, _LARGEST_INT16 = np.int32(127), np.int32(127 * 256 + 127)
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
def swiglu_group(tile):
    """32 floats silu(gate) * up in place of gate 0...15 | up 0...15 | gate 16...31 | up 16...31."""
    for half in range(2):
        for at in range(0, 64, 32):
            source = tile + half * 128 + at
            value = mul(silu(load_f32x8(source, 0)), load_f32x8(source, 64))
            store_f32x8(tile, half * 64 + at, value)


@inlined
def _group_scale(source, largest_code):
    """max|x| / largest code of 32 floats; NaN where one of them is not finite."""
    magnitude = splat_i32(np.int32(0x7FFFFFFF))
    largest = splat_i32(np.int32(0))
    for at in range(0, 128, 32):
        bits = bits_of(load_f32x8(source, at))
        largest = max_unsigned(largest, bit_and(bits, magnitude))
    largest_bits = max_lane(largest)
    if largest_bits >= _INFINITY_BITS:
        return np.float32(np.nan)
    return np.float32(float_of(largest_bits) / np.float32(largest_code))


@inlined
def _codes(source, scale, largest_code):
    """Eight floats as int32 codes; zeros where the scale is zero or NaN."""
    if not scale > np.float32(0.0):
        return splat_i32(np.int32(0))
    quotient = div(load_f32x8(source, 0), splat_f32(scale))
    code = sub(bits_of(add(quotient, splat_f32(_ROUND))), splat_i32(_ROUND_BITS))
    code = max_signed(code, splat_i32(np.int32(-largest_code)))
    return min_signed(code, splat_i32(np.int32(largest_code)))


@inlined
def encode_int8(source, group):
    """Quantise 32 floats at `source` into the int8 group at `group`."""
    scale = _group_scale(source, _LARGEST_INT8)
    total = splat_i32(np.int32(0))
    for at in range(0, 128, 32):
        code = _codes(source + at, scale, _LARGEST_INT8)
        store_low_bytes(group, at // 4, code)
        total = add(total, code)
    store_f32(group + _INT8_SCALE, 0, scale)
    store_i32(group + _INT8_OFFSET, 0, np.int32(8 * sum_lanes(total)))


@inlined
def encode_int16(source, group):
    """Quantise 32 floats at `source` into the int16 group at `group`."""
    scale = _group_scale(source, _LARGEST_INT16)
    total = splat_i32(np.int32(0))
    for at in range(0, 128, 32):
        code = _codes(source + at, scale, _LARGEST_INT16)
        lifted = add(code, splat_i32(np.int32(32768 + 128)))  # positive: a shift rounds down
        high = sub(shift_right(lifted, 8), splat_i32(np.int32(128)))
        store_low_bytes(group, at // 4, high)
        store_low_bytes(group + 32, at // 4, sub(code, shift_left(high, 8)))
        total = add(total, code)
    store_f32(group + _INT16_SCALE, 0, scale)
    store_i32(group + _INT16_OFFSET, 0, np.int32(8 * sum_lanes(total)))


@inlined
def bias_codes(group, planes):
    """Make the signed codes of a group unsigned: code + 128."""
    for at in range(0, 32 * planes, 32):
        bits = bits_of(load_f32x8(group, at))
        flipped = bit_xor(bits, splat_i32(np.int32(-2139062144)))  # 0x80 in every byte
        store_f32x8(group, at, floats_of(flipped))


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
