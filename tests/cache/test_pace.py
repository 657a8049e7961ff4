"""How the split learns what its rates did not say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid.cache.pace import LEAST_S, MOST, Pace, corrected


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_it_comes_to_the_true_ratio(true):
    pace = Pace()
    for _ in range(60):
        pace = corrected(pace, (0.1 * pace.device, 0.2 * pace.cpu), (0.1 * true, 0.2 / true))
    assert pace.device == pytest.approx(true, rel=1e-3)
    assert pace.cpu == pytest.approx(1 / true, rel=1e-3)


def test_one_accident_is_no_rule():
    pace = corrected(Pace(), (0.1, 0.1), (1e6, 0.1))
    assert pace.device <= 0.8 + 0.2 * MOST
    assert pace.cpu == 1


def test_what_is_too_short_or_was_not_timed_says_nothing():
    pace = Pace(2.0, 0.5)
    assert corrected(pace, (LEAST_S, 0.0), (1.0, 1.0)) == pace
    assert corrected(pace, (1.0, 1.0), (None, None)) == pace
    assert corrected(pace, (float("inf"), float("inf")), (1.0, 1.0)) == pace


times = st.floats(0, 1e6)


@given(st.lists(st.tuples(times, times, times, times)))
def test_it_stays_within_its_bounds(layers):
    pace = Pace()
    for device, cpu, real_device, real_cpu in layers:
        pace = corrected(pace, (device, cpu), (real_device, real_cpu))
    assert 1 / MOST <= pace.device <= MOST
    assert 1 / MOST <= pace.cpu <= MOST
