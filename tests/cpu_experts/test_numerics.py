"""exp and silu of the compiled code: numpy's bits, and float64's value."""

import numpy as np
import pytest
from numba import njit

from hybrid.cpu_experts import numerics
from hybrid.cpu_experts.simd import load_f32x8, store_f32x8
from tests.cpu_experts.native_call import INT8_GROUP, same_bits
from tests.reference import experts as reference

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


@njit(error_model="numpy")
def encode_int8(source, target):
    numerics.encode_int8(source, target)


def test_an_int8_group():
    """Ties go to even, both signs reach 127, the offset is eight times the sum."""
    source = np.zeros(32, F32)
    source[:6] = [127, -127, 0.5, 1.5, 2.5, -3.5]
    group = np.zeros(1, INT8_GROUP)
    encode_int8(source.ctypes.data, group.ctypes.data)
    assert group["codes"][0, :6].tolist() == [127, -127, 0, 2, 2, -4]
    assert group["scale"][0] == 1
    assert group["offset"][0] == 8 * (0 + 2 + 2 - 4)
    codes, scale = reference.quantise(source)
    assert np.array_equal(codes, group["codes"])
    assert np.array_equal(scale, group["scale"])
