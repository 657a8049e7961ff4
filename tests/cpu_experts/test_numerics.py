"""exp, silu and the encoders of the compiled code: numpy's bits, and float64's value."""

import numpy as np
import pytest
from numba import njit

from hybrid.cpu_experts import numerics
from hybrid.cpu_experts.simd import load_f32x8, store_f32x8
from tests.cpu_experts.native_call import biased, encode, same_bits
from tests.reference import experts as reference
from tests.reference.rows16 import GROUPS

F32 = np.float32
ULP = 2.0**-23


def over_vectors(function):
    @njit(error_model="numpy")
    def run(source, target, nbytes):
        for at in range(0, nbytes, 32):
            store_f32x8(target, at, function(load_f32x8(source, at)))

    def apply(x):
        out = np.empty_like(x)
        run(x.ctypes.data, out.ctypes.data, x.nbytes)
        return out

    return apply


@pytest.fixture(scope="module")
def exp():
    return over_vectors(numerics.exp)


@pytest.fixture(scope="module")
def silu():
    return over_vectors(numerics.silu)


def exp_grid():
    rng = np.random.default_rng(0)
    ends = np.array([-87, 87, 0, -0.0, 1e-30, -1e-30, 1e-45, 0.34657359], F32)
    return np.concatenate([np.linspace(-87, 87, 1 << 16, dtype=F32), ends, rng.normal(0, 1, 4096)])


def exp_error(x, y):
    """Largest relative error in units of 2^-23."""
    exact = np.exp(x.astype(np.float64))
    return np.max(np.abs(y - exact) / exact) / ULP


def test_exp_is_numpys_and_good_to_two_ulp(exp):
    x = exp_grid().astype(F32)
    y = exp(x)
    assert same_bits(y, reference.exp(x))
    assert exp_error(x, y) < 2
    assert exp_error(x, (y.view(np.int32) + 3).view(F32)) > 2  # three steps off are seen


def test_silu_is_numpys_everywhere(silu):
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, 1 << 16, dtype=np.uint64).astype(np.uint32).view(F32)
    ends = np.array([0, -0.0, 87, -87, 88, -88, 100, -100, 3e38, -3e38, np.inf, -np.inf, np.nan])
    ordinary = np.concatenate([rng.normal(0, 8, 1 << 16), ends, np.zeros(3)]).astype(F32)
    x = np.concatenate([bits, ordinary])
    assert same_bits(silu(x), reference.silu(x))


def test_silu_of_large_arguments(silu):
    x = np.array([-np.inf, -3e38, -100, -87, 87, 100, 3e38, np.inf], F32)
    y = silu(x)
    assert np.all((y[:4] < 0) & (y[:4] > -1e-35))  # the limit is 0, without a detour over infinity
    assert y[4:].tolist() == x[4:].tolist()
    assert np.isnan(silu(np.full(8, np.nan, F32))).all()


def test_silu_agrees_with_float64(silu):
    """silu = g / (1 + e): exp's 2 ulp, an addition and a division, each half an ulp: at most 3."""
    x = np.linspace(-80, 80, 1 << 15, dtype=F32)
    exact = x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64)))
    assert np.all(np.abs(silu(x) - exact) <= 3 * ULP * np.abs(exact))


# ---- encoded activations


def encoder(encode_group, planes):
    """Groups [n] of a mode from x [n, 32], signed and biased, by the compiled code."""

    @njit(error_model="numpy")
    def run(source, target, group_bytes, groups, bias):
        for group in range(groups):
            at = target + group * group_bytes
            encode_group(source + group * 128, at)
            if bias:
                numerics.bias_codes(at, planes)

    def apply(kind, x, bias):
        guarded = np.zeros(len(x) + 1, kind)  # the last one must stay as it is
        guarded[-1:].view(np.uint8)[:] = 0xA5
        run(x.ctypes.data, guarded.ctypes.data, kind.itemsize, len(x), bias)
        assert (guarded[-1:].view(np.uint8) == 0xA5).all()
        return guarded[:-1]

    return apply


@pytest.fixture(scope="module")
def compiled_encode():
    modes = {
        "int8": encoder(numerics.encode_int8, 1),
        "int16": encoder(numerics.encode_int16, 2),
        "bf16": encoder(numerics.encode_bf16, 0),
    }
    return lambda mode, x, bias=False: modes[mode](GROUPS[mode], x, bias)


def groups_of_all_kinds():
    """x [n, 32]: ordinary, ties, every magnitude down to subnormals, infinities, NaNs, any bits."""
    rng = np.random.default_rng(2)
    ordinary = rng.standard_normal((400, 32)) * 10.0 ** rng.integers(-3, 4, (400, 1))
    scaled = rng.standard_normal((400, 32)) * 10.0 ** np.linspace(-46, 38, 400)[:, None]
    ties = rng.integers(-254, 255, (100, 32)) / 2
    ties[:, 0] = 127
    wide_ties = rng.integers(-65278, 65279, (100, 32)) / 2
    wide_ties[:, 0] = -32639
    odd = rng.standard_normal((40, 32))
    odd[np.arange(40), np.arange(40) % 32] = np.tile([np.inf, -np.inf, np.nan, 0], 10)
    any_bits = rng.integers(0, 2**32, (400, 32), dtype=np.uint64).astype(np.uint32).view(F32)
    parts = ordinary, scaled, ties, wide_ties, odd, np.zeros((1, 32)), any_bits
    return np.concatenate([np.asarray(part, F32) for part in parts])


def same_groups(a, b):
    """Field by field, bit for bit; any NaN equals any NaN."""
    equal = [
        same_bits(a[name], b[name]) if a[name].dtype == F32 else np.array_equal(a[name], b[name])
        for name in a.dtype.names
    ]
    return all(equal)


@pytest.mark.parametrize("mode", ["int8", "int16", "bf16"])
@pytest.mark.filterwarnings("ignore:overflow|invalid:RuntimeWarning")
def test_an_encoded_group_is_numpys(compiled_encode, mode):
    x = groups_of_all_kinds()
    want = encode(mode, x)[:, 0]
    got = compiled_encode(mode, x)
    assert same_groups(got, want)
    other = {"int8": "codes", "int16": "lo", "bf16": "x"}[mode]
    got[other][3, 5] += 1
    assert not same_groups(got, want)  # one code of 45,000 off by one is seen


@pytest.mark.parametrize("mode", ["int8", "int16"])
@pytest.mark.filterwarnings("ignore:overflow|invalid:RuntimeWarning")
def test_biased_codes_are_the_codes_and_128(compiled_encode, mode):
    """The rest of a biased group: the scale is kept, the sum is nobody's business."""
    x = groups_of_all_kinds()
    signed, unsigned = compiled_encode(mode, x), compiled_encode(mode, x, bias=True)
    want = biased(mode, signed)
    unsigned["offset"] = want["offset"]
    assert same_groups(unsigned, want)
    assert not same_groups(unsigned, signed)
    for plane in {"int8": ("codes",), "int16": ("hi", "lo")}[mode]:
        values = unsigned[plane].view(np.uint8).astype(int) - 128
        assert np.array_equal(values, signed[plane])


def test_an_int8_group(compiled_encode):
    """Ties go to even, both signs reach 127, the offset is eight times the sum."""
    source = np.zeros((1, 32), F32)
    source[0, :6] = [127, -127, 0.5, 1.5, 2.5, -3.5]
    group = compiled_encode("int8", source)
    assert group["codes"][0, :6].tolist() == [127, -127, 0, 2, 2, -4]
    assert group["scale"][0] == 1
    assert group["offset"][0] == 8 * (0 + 2 + 2 - 4)
    codes, scale = reference.quantise(source[0])
    assert np.array_equal(codes, group["codes"])
    assert np.array_equal(scale, group["scale"])


def test_an_int16_group(compiled_encode):
    """Both signs reach 32,639; 128 is 256 - 128, -128 has no high byte; ties go to even."""
    source = np.zeros((1, 32), F32)
    values = [32639, -32639, 127, 128, -128, -129, 255.5, 256.5, 384, -32512]
    source[0, : len(values)] = values
    group = compiled_encode("int16", source)
    assert group["hi"][0, :10].tolist() == [127, -127, 0, 1, 0, -1, 1, 1, 2, -127]
    assert group["lo"][0, :10].tolist() == [127, -127, 127, -128, -128, 127, 0, 0, -128, 0]
    assert group["scale"][0] == 1
    codes = [32639, -32639, 127, 128, -128, -129, 256, 256, 384, -32512]
    assert group["offset"][0] == 8 * sum(codes)
    assert reference.quantise(source[0], "int16")[0][0, :10].tolist() == codes


def test_an_int16_code_is_within_half_a_step(compiled_encode):
    """|x - s code| <= s / 2 + 2 u |x|, the latter for the roundings of scale and quotient."""
    rng = np.random.default_rng(4)
    x = (rng.standard_normal((2000, 32)) * 10.0 ** rng.integers(-30, 30, (2000, 1))).astype(F32)
    group = compiled_encode("int16", x)
    codes = 256 * group["hi"].astype(np.float64) + group["lo"]
    scale = group["scale"].astype(np.float64)[:, None]
    error, bound = np.abs(x - scale * codes), scale / 2 + 2 * 2.0**-24 * np.abs(x)
    assert (error <= bound).all()
    assert error.max(initial=0, where=scale == scale.max()) > 0.4 * scale.max()  # and no less
    truncated = np.trunc(x / scale)
    assert not (np.abs(x - scale * truncated) <= bound).all()
    one_plane = 256 * group["hi"].astype(np.float64)
    assert not (np.abs(x - scale * one_plane) <= bound).all()
