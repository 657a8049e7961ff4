"""int8 weights: what is stored, how far it is from bf16, and every bit of a product with them."""

from fractions import Fraction

import numpy as np
import pytest

from hybrid.cpu_dense.panel import GROUP, GROUP_BYTES, LANES, MAX_TOKENS
from hybrid.cpu_dense.tiles import INT8, tile, widened
from hybrid.cpu_experts.pool import shared_pool
from tests.cpu_dense.bounds import Near, excess, product
from tests.cpu_dense.models import truncated_bf16
from tests.cpu_dense.test_linear import linear, random_case, rounded
from tests.reference import int8_weights


def stored(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes [rows, groups, 32] and scales [rows, groups] as they lie in memory."""
    rows, columns = weight.shape
    tiled = tile([weight], shared_pool(1), INT8)
    steps = tiled.memory.view(np.uint8).reshape(-1, -(-columns // GROUP), GROUP_BYTES)
    split = GROUP * LANES
    codes = steps[:, :, :split].view(np.int8).reshape(*steps.shape[:2], GROUP, LANES)
    scales = widened(np.ascontiguousarray(steps[:, :, split:]).view(np.uint16))
    by_row = codes.transpose(0, 3, 1, 2).reshape(-1, steps.shape[1], GROUP)
    return by_row[:rows], scales.transpose(0, 2, 1).reshape(-1, steps.shape[1])[:rows]


def normal(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Weights as trained ones are: most small, a few large."""
    rng = np.random.default_rng(seed)
    return truncated_bf16(rng.standard_t(5, (rows, columns)) * 0.02)


@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (40, 70), (1, 1), (33, 128)])
def test_codes_and_scales_are_those_of_the_reference(rows, columns):
    weight = normal(rows, columns)
    codes, scales = stored(weight)
    expected, expected_scales = int8_weights.coded(widened(weight).astype(np.float64))
    assert np.array_equal(codes, expected)
    assert np.array_equal(scales, expected_scales)


def test_a_transposed_view_is_coded_along_its_own_inputs():
    weight = normal(64, 48)
    codes, scales = stored(weight.T)
    expected, expected_scales = int8_weights.coded(widened(weight.T).astype(np.float64))
    assert np.array_equal(codes, expected)
    assert np.array_equal(scales, expected_scales)
    assert not np.array_equal(scales.ravel()[:48], stored(weight)[1].ravel()[:48])


@pytest.mark.parametrize("magnitude", [1e-30, 0.02, 1.0, 1e30])
def test_no_weight_is_further_than_half_a_scale(magnitude):
    weight = truncated_bf16(widened(normal(64, 320)).astype(np.float64) * magnitude)
    codes, scales = stored(weight)
    exact = widened(weight).astype(np.float64).reshape(64, -1, GROUP)
    distance = np.abs(exact - codes * scales[:, :, None].astype(np.float64))
    assert np.all(distance <= scales[:, :, None] / 2)
    assert np.abs(codes).max() == 127
    assert np.all(scales <= np.abs(exact).max(axis=2) / 127 * (1 + 2.0**-7))
    shifted = np.abs(exact - codes * np.roll(scales, 1, axis=1)[:, :, None].astype(np.float64))
    assert np.any(shifted > scales[:, :, None] / 2)


def test_zeros_and_what_is_not_finite():
    weight = normal(20, 96)
    weight[3, :32] = 0
    weight[5, 40] = 0x7F80  # infinity
    weight[7, 1] = 0xFFC1  # NaN
    codes, scales = stored(weight)
    assert scales[3, 0] == 0
    assert not codes[3, 0].any()
    x = np.random.default_rng(0).standard_normal((3, 96)).astype(np.float32)
    nan = np.isnan(linear([weight], x, layout=INT8)).all(axis=0)
    assert np.flatnonzero(nan).tolist() == [5, 7]


def serial(codes: np.ndarray, scales: np.ndarray, x: np.ndarray) -> np.float32:
    """One output: a group's fused sum of code * x from zero, then fma(sum, scale, total)."""
    total = np.float32(0)
    for group, scale in enumerate(scales.tolist()):
        part = np.float32(0)
        for code, value in zip(
            codes[group].tolist(), x[group * GROUP : (group + 1) * GROUP].tolist(), strict=False
        ):
            part = rounded(code * Fraction(value) + Fraction(float(part)))
        total = rounded(Fraction(float(part)) * Fraction(scale) + Fraction(float(total)))
    return total


@pytest.mark.parametrize("tokens", [1, 2, 6, 7])
def test_each_output_is_what_the_docstring_says(tokens):
    """In exact arithmetic, rounded once an operation: no room for another order."""
    weight, x = random_case(70, 80, tokens)
    codes, scales = stored(weight)
    expected = [[serial(c, s, row) for c, s in zip(codes, scales, strict=True)] for row in x]
    assert np.array_equal(linear([weight], x, layout=INT8), np.array(expected, np.float32))


@pytest.mark.parametrize("rows", [1, 17, 64, 129])
@pytest.mark.parametrize("columns", [1, 31, 64, 700])
def test_a_token_alone_and_in_blocks(rows, columns):
    weight, x = random_case(rows, columns, 2 * MAX_TOKENS + 1)
    residual = np.random.default_rng(0).standard_normal((len(x), rows)).astype(np.float32)
    whole = linear([weight], x, residual=residual, layout=INT8)
    for count in range(1, len(x)):
        alone = linear([weight], x[:count], residual=residual, layout=INT8)
        assert np.array_equal(alone, whole[:count])


def distance_bound(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """How far int8 may be from bf16: half a scale for each weight, worst case. [tokens, rows]."""
    _, scales = int8_weights.coded(weight)
    size = np.zeros((len(x), scales.shape[1] * GROUP))
    size[:, : x.shape[1]] = np.abs(x)
    return size.reshape(len(x), -1, GROUP).sum(axis=2) @ (scales / 2).T


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_true_size(tokens, threads):
    """Against exact products with the codes' values, and within the derived bound of bf16's."""
    weight = normal(2048, 7168, seed=1)
    x = random_case(1, 7168, tokens)[1]
    exact = widened(weight).astype(np.float64)
    near = product(Near.exact(x), int8_weights.decoded(exact))
    computed = linear([weight], x, threads, layout=INT8)
    assert excess(computed, near) < 1
    far = np.abs(computed - x.astype(np.float64) @ exact.T)
    assert np.all(far <= distance_bound(exact, x) + near.error * 8)
    assert excess(linear([weight], x, threads), near) > 3  # bf16 is something else
    weight[1000, 7167] = truncated_bf16(-2 * widened(weight[1000, 7167:])).item()
    assert excess(linear([weight], x, threads, layout=INT8), near) > 1  # one of 14.7 million


def test_the_bound_sees_scales_of_the_neighbouring_group():
    weight, x = random_case(64, 256, 1)
    weight = truncated_bf16(widened(weight) * np.repeat(np.geomspace(0.01, 1, 8), 32))
    exact = widened(weight).astype(np.float64)
    codes, scales = stored(weight)
    shifted = (codes * np.roll(scales, 1, axis=1)[:, :, None]).reshape(64, 256)
    far = np.abs(x.astype(np.float64) @ (shifted - exact).T)
    assert np.any(far > 3 * distance_bound(exact, x))
