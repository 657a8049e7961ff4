"""One weight matrix: every instruction set against numpy bit for bit, and against float64 by bound.

Error of the int8 and int16 modes for one output row, u = 2^-24, G groups, w = scale * q:
  a code is off by at most half a step (amax / 2 L, where L is the largest code) and by the rounding
  of scale and quotient (2 u of x), so quantising costs at most sum |w| (amax / 2 L + 2 u amax); the
  integer dot is exact, and exact as float32 (32 * 8 * 32,639 < 2^24); then a product of scales, a
  product and at most G additions are rounded, which adds (G + 2) u sum |w| |x|.
Error of the bf16 mode, x already rounded: a product, 32 additions, the scale and G additions, each
  rounded: (G + 34) u sum |w| |x|. Terms in u^2 are covered by a factor of 1 + 1e-4.
"""

import numpy as np
import pytest

from hybrid.cpu_experts import available_isas
from tests.cpu_experts.native_call import matvec, same_bits
from tests.reference import experts as reference
from tests.reference.experts import F32, GROUP, LARGEST, MATVEC, Matrix

U = 2.0**-24
SHAPES = [(16, 32), (32, 96), (64, 512), (16, 7168)]
ISAS, MODES, INTEGERS = available_isas(), ("int8", "int16", "bf16"), ("int8", "int16")


def activations(rng, rows, columns):
    """Never near zero: a fault times zero is invisible."""
    x = rng.uniform(0.5, 2.0, (rows, columns)) * rng.choice([-1, 1], (rows, columns))
    return x.astype(F32)


def excess(mode, matrix, x, got):
    """Largest error over its bound; at most 1 for a right kernel."""
    exact_x = (reference.round_bf16(x) if mode == "bf16" else x).astype(np.float64)
    weights, groups = np.abs(matrix.dense), x.shape[1] // GROUP
    rounded = (groups + (34 if mode == "bf16" else 2)) * U * (np.abs(exact_x) @ weights.T)
    amax = np.abs(exact_x).reshape(len(x), groups, GROUP).max(axis=2)
    half_step = 1 / (2 * LARGEST[mode]) + 2 * U if mode in LARGEST else 0
    bound = rounded + half_step * np.repeat(amax, GROUP, axis=1) @ weights.T
    return np.max(np.abs(got - exact_x @ matrix.dense.T) / (bound * (1 + 1e-4)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numpy_gives_the_same_bits(isa, mode, shape):
    rng = np.random.default_rng(shape[1])
    matrix, x = reference.random_matrix(rng, *shape), activations(rng, 7, shape[1])
    want = np.stack([MATVEC[mode](matrix, row) for row in x])
    assert same_bits(matvec(isa, mode, matrix, x), want)
    assert excess(mode, matrix, x, want) <= 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("isa", ISAS)
def test_a_row_does_not_see_its_neighbours(isa, mode):
    """Up to four rows, more, more than a call takes, repeated rows: the bits of the row alone."""
    rng = np.random.default_rng(5)
    matrix, x = reference.random_matrix(rng, 32, 128), activations(rng, 6, 128)
    alone = np.stack([matvec(isa, mode, matrix, x, [i])[0] for i in range(len(x))])
    for picks in ([0, 1], [5, 5, 0], [3, 1, 4, 1], [2, 0, 5, 3, 3], [0, 1, 2, 3, 4, 5], [4] * 16,
                  [3] * 63, [1] * 64, [2] * 65, [0, 1, 2, 3] * 17):  # fmt: skip
        assert same_bits(matvec(isa, mode, matrix, x, picks), alone[picks])


@pytest.mark.parametrize("rows", [4, 5])
@pytest.mark.parametrize("mode", INTEGERS)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("nibble", [0, 15])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_do_not_saturate(isa, mode, nibble, sign, rows):
    """All nibbles 0 (-8) or 15 (+7) against the largest codes: 16-bit sums reach their maximum."""
    word, largest = np.uint32(nibble * 0x11111111), LARGEST[mode]
    matrix = Matrix(np.full((16, 8), word).view(np.int32), np.full((16, 2), 0x3F80, np.uint16))
    x = np.full((rows, 64), sign * largest, F32)
    assert np.all(matvec(isa, mode, matrix, x) == sign * largest * 64 * (nibble - 8))
    alternating = x * np.tile(np.array([1, -1], F32), 32)
    assert np.all(matvec(isa, mode, matrix, alternating) == 0)


# ---- faults in the data


def swap_nibbles(matrix):
    words = matrix.packed.view(np.uint32)
    swapped = ((words & 0x0F0F0F0F) << 4) | ((words >> 4) & 0x0F0F0F0F)
    return Matrix(swapped.view(np.int32), matrix.scale)


def twos_complement(matrix):
    return Matrix((matrix.packed.view(np.uint32) ^ 0x88888888).view(np.int32), matrix.scale)


def shift_scales(matrix):
    return Matrix(matrix.packed, np.roll(matrix.scale, 1, axis=1))


def nudge_one_nibble(matrix):
    packed = matrix.packed.copy()
    packed[0, -1] ^= 0x10000000
    return Matrix(packed, matrix.scale)


FAULTS = [swap_nibbles, twos_complement, shift_scales, nudge_one_nibble]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("mode", MODES)
def test_a_fault_in_the_weights_is_seen(mode, fault):
    rng = np.random.default_rng(0)
    matrix, x = reference.random_matrix(rng, 64, 512), activations(rng, 3, 512)
    got = matvec(ISAS[-1], mode, fault(matrix), x)
    assert not same_bits(got, np.stack([MATVEC[mode](matrix, row) for row in x]))
    if mode != "int8" or fault is not nudge_one_nibble:  # one step hides below int8's own error
        assert excess(mode, matrix, x, got) > 1


# ---- faults in the arithmetic


def fused(mode, matrix, x):
    """acc = fma(dot, scales, acc): what a contracting compiler would emit."""
    codes, scale = reference.quantise(x, mode)
    weights = matrix.codes.reshape(len(matrix.packed), -1, GROUP)
    dots = np.einsum("rgi,gi->rg", weights, codes).astype(np.float64)
    acc = np.zeros(len(weights), F32)
    for g in range(len(scale)):
        scales = (matrix.scales[:, g] * scale[g]).astype(np.float64)
        acc = (acc.astype(np.float64) + dots[:, g] * scales).astype(F32)  # the product is exact
    return acc


def backwards(mode, matrix, x):
    """Groups in descending order."""
    flipped = Matrix(
        matrix.packed.reshape(len(matrix.packed), -1, 4)[:, ::-1].reshape(len(matrix.packed), -1),
        matrix.scale[:, ::-1],
    )
    return MATVEC[mode](flipped, x.reshape(-1, GROUP)[::-1].reshape(-1))


def scale_after(mode, matrix, x):
    """(dot * w_scale) * x_scale instead of dot * (w_scale * x_scale)."""
    codes, scale = reference.quantise(x, mode)
    weights = matrix.codes.reshape(len(matrix.packed), -1, GROUP)
    dots = np.einsum("rgi,gi->rg", weights, codes).astype(F32)
    acc = np.zeros(len(weights), F32)
    for g in range(len(scale)):
        acc = acc + (dots[:, g] * matrix.scales[:, g]) * scale[g]
    return acc


@pytest.mark.parametrize("mode", INTEGERS)
@pytest.mark.parametrize("fault", [fused, backwards, scale_after])
def test_a_fault_in_the_order_of_rounding_is_seen(mode, fault):
    """Errors in the last bit: far inside any tolerance, and still not the defined result."""
    rng = np.random.default_rng(1)
    matrix, x = reference.random_matrix(rng, 64, 512), activations(rng, 1, 512)
    wrong = fault(mode, matrix, x[0])[None]
    assert not same_bits(matvec(ISAS[-1], mode, matrix, x), wrong)
    assert excess(mode, matrix, x, wrong) <= 1
