"""Slots over cards: all of them, once, in proportion, and neighbours apart."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hybrid.cache.dealing import deal, shares

MEMORY = st.lists(st.integers(0, 96 << 30), min_size=1, max_size=4)


@given(st.integers(0, 3000), MEMORY)
def test_every_slot_is_some_cards_in_proportion_to_memory(slots, memory):
    counts = shares(slots, memory)
    assert sum(counts) == slots
    assert min(counts) >= 0
    if sum(memory):
        for count, own in zip(counts[1:], memory[1:], strict=True):
            assert count == slots * own // sum(memory)
        exact = slots * memory[0] / sum(memory)
        assert exact - 1e-6 <= counts[0] < exact + len(memory)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_each_slot_is_one_place_on_one_card(counts):
    card, local = deal(counts)
    assert card.dtype == local.dtype == np.int32
    for at, count in enumerate(counts):
        assert sorted(local[card == at].tolist()) == list(range(count))


@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.data())
def test_neighbours_are_spread(counts, data):
    """Any run of slots holds of each card its part, give or take one either end."""
    card, _ = deal(counts)
    start = data.draw(st.integers(0, len(card) - 1))
    end = data.draw(st.integers(start, len(card)))
    for at, count in enumerate(counts):
        part = (end - start) * count / len(card)
        assert abs(np.count_nonzero(card[start:end] == at) - part) <= len(counts)


def test_one_after_the_other_would_not_spread_them():
    """The planted fault: the first card's slots come first."""
    card = np.repeat([0, 1], 20)
    assert np.count_nonzero(card[:20] == 1) == 0
    assert np.count_nonzero(deal([20, 20])[0][:20] == 1) == 10
