"""Student's t against published tables and against closed forms."""

import math

import pytest

from hybrid.benchmark.student import quantile, two_sided_p

# t with two-sided probability 0.05, 0.01, 0.001 (any statistics textbook)
TABLE = {
    2: (4.303, 9.925, 31.599),
    4: (2.776, 4.604, 8.610),
    8: (2.306, 3.355, 5.041),
    30: (2.042, 2.750, 3.646),
    120: (1.980, 2.617, 3.373),
}


@pytest.mark.parametrize("freedom", TABLE)
def test_quantiles_are_those_of_the_tables(freedom):
    found = [quantile(p, freedom) for p in (0.05, 0.01, 0.001)]
    assert found == pytest.approx(TABLE[freedom], abs=6e-4)  # three digits behind the point


@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 3.0, 50.0])
def test_closed_forms(t):
    """One degree of freedom is Cauchy's distribution; two have a root."""
    assert two_sided_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-12)
    assert two_sided_p(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-12)
    assert two_sided_p(-t, 2) == two_sided_p(t, 2)


@pytest.mark.parametrize("t", [0.5, 1.96, 4.0])
def test_many_samples_are_normal(t):
    """The distance to the normal distribution is of the order of 1 / freedom."""
    assert two_sided_p(t, 1e6) == pytest.approx(math.erfc(t / math.sqrt(2)), abs=1e-5)


@pytest.mark.parametrize("freedom", [2, 2.7, 9, 400])
@pytest.mark.parametrize("p", [0.5, 0.05, 0.0005])
def test_quantiles_invert(freedom, p):
    assert two_sided_p(quantile(p, freedom), freedom) == pytest.approx(p, rel=1e-6)


def test_the_table_would_show_a_wrong_freedom():
    assert quantile(0.05, 9) != pytest.approx(TABLE[8][0], abs=6e-4)
