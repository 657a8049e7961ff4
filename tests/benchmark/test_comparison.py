"""Differences that are there are seen, and those that are not are not."""

import math

import numpy as np
import pytest

from hybrid.benchmark.comparison import ALPHA, compare, welch
from hybrid.benchmark.result_file import Result, Results
from hybrid.errors import RequestError

TRIALS = 400


def results(*rows, **head):
    return Results("file", {"bench": 1, **head}, tuple(rows))


def result(rates, test="tg128", kind="rotating", hashes=()):
    return Result(test, kind, tuple(rates), tuple(hashes))


def share_outside(ratio, noise, rows=1, samples=5, judge=compare):
    """In which share of trials some row is outside the noise."""
    rng = np.random.default_rng(0)
    outside = 0
    for _ in range(TRIALS):
        a, b = (
            results(
                *(
                    result(np.exp(rng.normal(math.log(10 * r), noise, samples)), f"tg{row}")
                    for row in range(rows)
                )
            )
            for r in (1.0, ratio)
        )
        outside += any(row.inside_noise is False for row in judge(a, b).rows)
    return outside / TRIALS


@pytest.mark.parametrize(("rows", "samples"), [(1, 3), (1, 20), (6, 5)])
def test_equal_runs_are_seldom_told_apart(rows, samples):
    """At most ALPHA, plus four standard errors of a share counted in TRIALS trials."""
    allowed = ALPHA + 4 * math.sqrt(ALPHA * (1 - ALPHA) / TRIALS)
    assert share_outside(1.0, 0.03, rows, samples) <= allowed


def test_the_check_sees_a_test_that_is_too_eager(monkeypatch):
    """Planted: each of six rows at 5 % of its own."""
    monkeypatch.setattr("hybrid.benchmark.comparison.ALPHA", 6 * ALPHA)
    allowed = ALPHA + 4 * math.sqrt(ALPHA * (1 - ALPHA) / TRIALS)
    assert share_outside(1.0, 0.03, 6) > allowed


@pytest.mark.parametrize("ratio", [1.1, 0.9])
def test_a_tenth_is_seen_through_three_per_cent_of_noise(ratio):
    """t is 0.1 / (0.03 sqrt(2/5)) = 5.3 at 8 degrees of freedom; the limit for one row is 2.3."""
    assert share_outside(ratio, 0.03) > 0.95


def test_a_tenth_drowns_in_noise_of_a_fifth():
    assert share_outside(1.1, 0.2) < 0.3


def test_intervals_of_welch_by_hand():
    """Means 2 and 5, variances 1 and 4, three samples each: error sqrt(5/3), freedom 50/17."""
    low, high = welch([1, 2, 3], [3, 5, 7], 0.05)
    assert (low + high) / 2 == pytest.approx(3)
    # t(0.05, 50/17) lies between the table's 4.303 (2) and 3.182 (3), near the latter
    assert 3.18 < (high - low) / 2 / math.sqrt(5 / 3) < 3.26


@pytest.mark.parametrize(("b", "inside"), [(10.0, True), (10.001, False)])
def test_samples_without_any_spread(b, inside):
    (row,) = compare(results(result([10.0] * 5)), results(result([b] * 5))).rows
    assert row.inside_noise is inside
    assert row.ratio == pytest.approx(b / 10)


def test_tiny_and_huge_rates_do_not_break_it():
    found = compare(results(result([1e-300, 2e-300, 3e-300])), results(result([1e12, 1e11, 1e12])))
    assert found.rows[0].inside_noise is False


def test_rows_with_two_samples_are_not_judged():
    a = results(result([1.0, 1.1]), result([1.0, 1.1, 1.2], "pp512"))
    b = results(result([9.0, 9.1]), result([1.0, 1.1, 1.2], "pp512"))
    few, enough = compare(a, b).rows
    assert (few.inside_noise, few.low) == (None, None)
    assert enough.inside_noise is True


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(RequestError, match="no row in common"):
        compare(results(result([1.0] * 3)), results(result([1.0] * 3, kind="warm")))
    with pytest.raises(RequestError, match="no row has 3 samples"):
        compare(results(result([1.0] * 2)), results(result([1.0] * 9)))


def test_rows_of_one_file_alone_are_named():
    a = results(result([1.0] * 3), result([1.0] * 3, "pp512"))
    b = results(result([1.0] * 3), result([1.0] * 3, "pp2048", "warm"))
    assert compare(a, b).unmatched == ("pp512 rotating", "pp2048 warm")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (["x", "y", "z"], ["x", "y", "z"], True),
        (["x", "y", "z"], ["x", "y"], True),  # as far as both go
        (["x", "y", "z"], ["x", "n", "z"], False),
        (["x"], [], None),
    ],
)
def test_outputs(a, b, same):
    rates = [1.0, 2.0, 3.0]
    found = compare(results(result(rates, hashes=a)), results(result(rates, hashes=b)))
    assert found.rows[0].same_output is same


def test_other_prompts_have_other_outputs_and_that_is_no_difference():
    row = [result([1.0] * 3, hashes=["x"])], [result([1.0] * 3, hashes=["y"])]
    found = compare(results(*row[0], asked={"seed": 0}), results(*row[1], asked={"seed": 1}))
    assert found.rows[0].same_output is None
    assert found.differing == {"asked.seed": (0, 1)}


def test_what_differs_between_the_machines_is_named():
    a = {"environment": {"cpu": "x", "commit": "1", "load_average": 1}, "options": {"threads": 2}}
    b = {"environment": {"cpu": "y", "commit": "1", "load_average": 2}, "options": {"isa": "avx2"}}
    found = compare(results(result([1.0] * 3), **a), results(result([1.0] * 3), **b)).differing
    assert found == {
        "environment.cpu": ("x", "y"),
        "options.threads": (2, None),
        "options.isa": (None, "avx2"),
    }
    odd = results(result([1.0] * 3), environment=[1], options="x")
    assert compare(odd, odd).differing == {}
