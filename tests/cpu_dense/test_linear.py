"""The micro-kernel bit for bit, tiles, and one matrix of true size."""

from fractions import Fraction

import numpy as np
import pytest

from hybrid.cpu_dense.linear import LINEAR, fill_linear, multiply
from hybrid.cpu_dense.panel import LANES, MAX_TOKENS
from hybrid.cpu_dense.rows import Rows
from hybrid.cpu_dense.tiles import BF16, Layout, bf16_bits, three_planes, tile, widened
from hybrid.cpu_experts.pool import shared_pool
from tests.cpu_dense.bounds import Near, excess, product
from tests.cpu_dense.models import truncated_bf16


def linear(
    planes: list[np.ndarray], x: np.ndarray, threads: int = 1, residual=None, layout: Layout = BF16
) -> np.ndarray:
    """One compiled product: [tokens, rows]."""
    pool = shared_pool(threads)
    weight = tile(planes, pool, layout)
    rows_in = Rows.zeros(x.shape[1], len(x))
    rows_in.memory[:, : x.shape[1]] = x
    out = np.zeros((len(x), weight.rows), np.float32)
    job = np.zeros(1, LINEAR)
    fill_linear(job[0], weight, rows_in, None)
    job[0]["out"], job[0]["tokens"] = out.ctypes.data, len(x)
    job[0]["residual"] = 0 if residual is None else residual.ctypes.data
    with pool.lock:
        pool.start()
        multiply()(job.ctypes.data, pool.state)
    return out


def random_case(rows: int, columns: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows + columns + tokens)
    weight = truncated_bf16(rng.uniform(0.5, 2, (rows, columns)) * rng.choice([-1, 1], columns))
    return weight, rng.standard_normal((tokens, columns)).astype(np.float32)


def fused_sum(weights: np.ndarray, x: np.ndarray) -> np.float32:
    """Serial fused multiply-adds in exact arithmetic, rounded once each."""
    total = np.float32(0)
    for w, value in zip(weights.tolist(), x.tolist(), strict=True):
        total = rounded(Fraction(w) * Fraction(value) + Fraction(float(total)))
    return total


def rounded(value: Fraction) -> np.float32:
    """Nearest float32, ties to even, of a rational in the normal range."""
    guess = np.float32(float(value))
    infinity = np.float32(np.inf)
    near = [guess, np.nextafter(guess, -infinity), np.nextafter(guess, infinity)]
    distance = [abs(Fraction(float(candidate)) - value) for candidate in near]
    ties = [n for n, d in zip(near, distance, strict=True) if d == min(distance)]
    return min(ties, key=lambda n: int(n.view(np.uint32)) & 1)


@pytest.mark.parametrize("tokens", [1, 2, 6, 7])
def test_each_output_is_serial_fused_multiply_adds(tokens):
    """This is what makes the bits independent of block, thread and instruction set."""
    weight, x = random_case(70, 33, tokens)
    expected = [[fused_sum(w, row) for w in widened(weight)] for row in x]
    assert np.array_equal(linear([weight], x), np.array(expected, np.float32))


def test_the_order_of_the_sum_shows():
    """A kernel that sums from the other end would be seen."""
    weight, x = random_case(70, 33, 1)
    backwards = linear([weight[:, ::-1]], x[:, ::-1])
    assert not np.array_equal(linear([weight], x), backwards)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 64, 65, 129])
@pytest.mark.parametrize("columns", [1, 2, 31, 64])
def test_a_token_alone_and_in_blocks(rows, columns):
    weight, x = random_case(rows, columns, 2 * MAX_TOKENS + 1)
    residual = np.random.default_rng(0).standard_normal((len(x), rows)).astype(np.float32)
    whole = linear([weight], x, residual=residual)
    for count in range(1, len(x)):
        assert np.array_equal(linear([weight], x[:count], residual=residual), whole[:count])
    assert excess(whole - residual, add_ulp(product(Near.exact(x), wide(weight)), whole)) < 1


def wide(weight: np.ndarray) -> np.ndarray:
    return widened(weight).astype(np.float64)


def add_ulp(near: Near, whole: np.ndarray) -> Near:
    """Room for adding the residual and taking it away again."""
    return Near(near.value, near.error + 2.0**-23 * (np.abs(whole) + 4))


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("threads", [1, 2])
def test_true_size(tokens, threads):
    weight, x = random_case(2048, 7168, tokens)
    near = product(Near.exact(x), wide(weight))
    computed = linear([weight], x, threads)
    assert excess(computed, near) < 1
    weight[1000, 7167] ^= 0x8000  # one sign out of 14.7 million
    assert excess(linear([weight], x, threads), near) > 1


def test_tiles_are_where_the_docstring_says():
    weight = np.arange(1, 1 + 40 * 5, dtype=np.uint16).reshape(40, 5)
    tiled = tile([weight], shared_pool(1))
    steps = tiled.memory.reshape(3, 3, LANES, 2)  # [tile, step, lane, half]
    for row in range(40):
        padded = [*weight[row].tolist(), 0]
        assert steps[row // 16, :, row % 16].ravel().tolist() == padded
    assert not steps[2, :, 8:].any()
    assert tiled.address % 64 == 0


def test_a_transposed_view_is_packed_as_it_reads():
    weight, x = random_case(24, 40, 3)
    assert np.array_equal(linear([weight.T], x[:, :24]), linear([weight.T.copy()], x[:, :24]))


def test_three_planes_hold_float32_exactly():
    rng = np.random.default_rng(1)
    values = rng.standard_normal((40, 64)).astype(np.float32)
    planes = three_planes(values)
    assert np.array_equal(sum(widened(p).astype(np.float64) for p in planes), values)
    x = rng.standard_normal((3, 64)).astype(np.float32)
    near = product(Near.exact(x), values.astype(np.float64))
    assert excess(linear(planes, x), near) < 1
    assert excess(linear(planes[:1], x), near) > 3  # bf16 alone is not enough


def test_bf16_rounding():
    values = np.array([1.0, 1.00390625, 1.01171875, -0.0, np.inf, 3.4e38, np.nan], np.float32)
    wide_again = widened(bf16_bits(values))
    assert wide_again[:5].tolist() == [1.0, 1.0, 1.015625, -0.0, np.inf]  # ties to even
    assert wide_again[5] == np.inf
    assert np.isnan(wide_again[6])
