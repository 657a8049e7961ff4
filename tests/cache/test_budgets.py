"""Shares of the layers: sums, floors, and that unequal layers get unequal shares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.cache.budgets import CEILING, FLOOR, share
from hybrid.cache.policy import DEFAULT
from hybrid.cache.simulate import replay
from tests.cache.routing import published


@given(
    slots=st.integers(-3, 900),
    layers=st.integers(1, 12),
    experts=st.integers(1, 64),
    seed=st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_the_shares_add_up_within_their_limits(slots, layers, experts, seed):
    counts = np.random.default_rng(seed).gamma(0.3, size=(layers, experts)).round(1)
    limit = experts // 2 + 1
    shares = share(slots, counts, limit)
    assert shares.dtype == np.int64
    assert shares.sum() == max(0, min(slots, layers * min(limit, experts)))
    assert (shares <= limit).all()
    equal = shares.sum() / layers
    assert (shares >= np.floor(FLOOR * equal)).all()
    if np.ceil(CEILING * equal) <= limit:
        assert (shares <= np.ceil(CEILING * equal)).all()


@pytest.mark.parametrize("slots", [0, 1, 7, 60, 61, 200])
def test_layers_of_which_nothing_is_known_get_equal_shares(slots):
    shares = share(slots, np.zeros((6, 20)), 20)
    assert shares.tolist() == sorted(shares, reverse=True)
    assert shares.max() - shares.min() <= 1
    assert share(slots, np.ones((6, 20)), 20).tolist() == shares.tolist()


def test_more_picks_in_all_are_no_reason():
    counts = np.random.default_rng(0).gamma(0.3, size=(4, 32))
    louder = counts * np.array([[1], [10], [100], [1000]])
    assert share(40, louder, 32).tolist() == share(40, counts, 32).tolist()


def test_slots_go_where_the_next_hit_is():
    """One layer uses 6 experts alike, the other one 24: past 6 slots the first gains nothing."""
    counts = np.zeros((2, 32))
    counts[0, :6], counts[1, :24] = 4, 1
    assert share(20, counts, 32).tolist() == [7, 13]
    assert share(8, counts, 32).tolist() == [5, 3]


@pytest.mark.parametrize("slots", [6, 29])
def test_on_a_real_trace_it_costs_nothing(slots):
    """Shares by the first half, hits in the second: at worst 0.1 % of the picks are lost."""
    trace = published()
    counts = np.array(
        [np.bincount(ids.ravel(), minlength=256) for ids in trace.picks[:150].swapaxes(0, 1)]
    ).astype(np.float64)
    shares = share(slots * trace.layers, counts, trace.experts)
    assert shares.max() > shares.min()
    equal, unequal = (replay(trace, DEFAULT, rooms).warm_hit_rate for rooms in (slots, shares))
    assert unequal >= equal - 0.001
    emptied = share(slots * trace.layers, counts, trace.experts)
    emptied[:13] //= 4  # planted: some layers give most of their slots to others
    emptied[13:] = (slots * trace.layers - emptied[:13].sum()) // 13
    assert replay(trace, DEFAULT, emptied).warm_hit_rate < equal - 0.001
