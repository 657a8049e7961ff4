"""What cards have for experts, byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid.cache.card_room import RING, card_room
from hybrid.cache.dealing import shares

K25 = {
    "record_bytes": 24_772_608, "records": 23_040, "hidden": 7168, "per_token": 8,
    "pass_tokens": 2048,
}  # fmt: skip
GB = 10**9


def room(free, budget=None, **others):
    return card_room(free, **(K25 | others), budget=budget)


def test_one_card():
    found = room([40 * GB])
    rows = 2048 * 8 * 7168 * 4
    assert found.working == RING * 24_772_608 + rows + 2 * rows // 8
    assert found.slots == (40 * GB - found.working) // 24_772_608
    assert found.cards == (0,)


def test_less_than_a_ring_and_rows_is_nothing():
    least = room([40 * GB]).working
    assert room([least - 1]).cards == ()
    assert room([least - 1]).slots == 0
    assert room([least]).cards == (0,)  # prompts are streamed although nothing stays
    assert room([least]).slots == 0
    assert room([0, 40 * GB]).cards == ()  # the first has to sum
    assert room([40 * GB, 0, 40 * GB]).cards == (0, 2)


def test_a_budget_is_an_upper_bound():
    assert room([40 * GB], budget=10 * GB).slots == 10 * GB // 24_772_608
    assert room([40 * GB], budget=0).slots == 0
    assert room([40 * GB], budget=400 * GB).slots == room([40 * GB]).slots
    assert room([40 * GB], records=100).slots == 100
    assert room([40 * GB], records=0).cards == ()


@given(st.lists(st.integers(0, 100 * GB), min_size=1, max_size=8), st.none() | st.integers(0, GB))
def test_what_is_dealt_fits_every_card(free, budget):
    found = room(free, budget)
    if not found.cards:
        assert found.slots == 0
        return
    dealt = shares(found.slots, found.memory)
    assert sum(dealt) == found.slots
    for card, count in zip(found.cards, dealt, strict=True):
        assert found.working + count * K25["record_bytes"] <= free[card]


@pytest.mark.parametrize("more", range(3))
def test_more_memory_never_holds_less(more):
    free = [5 * GB, 20 * GB, 33 * GB]
    larger = [each + (3 * GB if at == more else 0) for at, each in enumerate(free)]
    assert room(larger).slots >= room(free).slots
