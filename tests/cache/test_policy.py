"""Policies: what must hold for every history, and the arithmetic against a slow one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.cache.policy import BLOCK_SWAPS, DEFAULT, POLICIES, Memory, Policy, Swap
from tests.reference import cache_replay

EXPERTS, K = 24, 4
NAMES = sorted(POLICIES)
SETTINGS = settings(max_examples=60, deadline=None)

token = st.lists(st.integers(0, EXPERTS - 1), min_size=K, max_size=K, unique=True)
holes = st.lists(st.booleans(), min_size=K, max_size=K)
tokens = st.lists(st.tuples(token, holes), min_size=1, max_size=150)


def array(drawn):
    """[tokens, k], some picks -1."""
    rows = [[-1 if hole else e for e, hole in zip(*row, strict=True)] for row in drawn]
    return np.array(rows, np.int32)


def same(one, other):
    return (
        np.array_equal(one.long[:-1], other.long[:-1])
        and np.array_equal(one.short[:-1], other.short[:-1])
        and (one.long_unit, one.short_unit) == (other.long_unit, other.short_unit)
    )


@pytest.mark.parametrize("name", NAMES)
@given(drawn=tokens, slots=st.integers(0, EXPERTS), cut=st.integers(0, 150))
@SETTINGS
def test_a_block_counts_as_its_tokens_one_by_one(name, drawn, slots, cut):
    policy, picks = POLICIES[name], array(drawn)
    block = policy.observe(policy.start(EXPERTS), picks, slots)
    singly = halves = policy.start(EXPERTS)
    for row in picks:
        singly = policy.observe(singly, row[None], slots)
    for part in (picks[:cut], picks[cut:]):
        halves = policy.observe(halves, part, slots)
    assert same(block, singly)
    assert same(block, halves)


def check_swaps(policy, picks, slots, block):
    """Play a history and look at every swap."""
    memory, resident = policy.start(EXPERTS), np.zeros(EXPERTS, bool)
    for first in range(0, len(picks), block):
        step = picks[first : first + block]
        memory = policy.observe(memory, step, slots)
        before = resident.copy()
        swaps = policy.swaps(memory, resident, slots, step[-1], len(step))
        assert np.array_equal(before, resident), "the mask was changed in place"
        assert swaps == policy.swaps(memory, resident, slots, step[-1], len(step)), "by chance"
        most = slots if policy.bound is None else policy.bound * min(len(step), BLOCK_SWAPS)
        assert len(swaps) <= most, "too many"
        for swap in swaps:
            assert not resident[swap.incoming], "is there already"
            assert len(step) > 1 or swap.incoming in step, "was not picked"
            resident[swap.incoming] = True
            if swap.outgoing is not None:
                assert resident[swap.outgoing], "was not there"
                assert swap.outgoing not in step[-1], "was picked"
                resident[swap.outgoing] = False
        assert resident.sum() <= slots, "overfull"
        known = np.isin(np.arange(EXPERTS), picks[: first + block])
        assert not (resident & ~known).any(), "nobody has picked it"


@pytest.mark.parametrize("name", NAMES)
@given(drawn=tokens, slots=st.integers(0, EXPERTS), block=st.integers(1, 40))
@SETTINGS
def test_swaps_keep_every_promise(name, drawn, slots, block):
    check_swaps(POLICIES[name], array(drawn), slots, block)


class Faulty(Policy):
    """The default with one promise broken, by name."""

    __slots__ = ()

    def swaps(self, memory, resident, slots, picked, tokens=1):
        fault, kind = self.name, super()
        if fault == "was picked":
            swaps = kind.swaps(memory, resident, slots, picked, tokens)
            inside = [int(e) for e in picked if resident[e]]
            return tuple(Swap(s.incoming, inside[0] if inside else s.outgoing) for s in swaps)
        if fault == "overfull":
            return kind.swaps(memory, resident, slots + 1, picked, tokens)
        if fault == "too many":
            return replace(DEFAULT, bound=2).swaps(memory, resident, slots, picked, tokens)
        if fault == "was not picked":
            return kind.swaps(memory, resident, slots, picked, tokens=2)[-1:]
        if fault == "is there already":
            return kind.swaps(memory, np.zeros_like(resident), slots, picked, tokens)
        return tuple(Swap(e, None) for e in np.flatnonzero(~resident)[-1:].tolist())


@pytest.mark.parametrize(
    "fault",
    ["was picked", "overfull", "too many", "was not picked", "is there already", "nobody has"],
)
def test_a_broken_promise_is_seen(fault):
    policy = Faulty(fault, span=16.0, recency=16.0, margin=1.5)
    if fault == "nobody has":  # newcomers at random: blocks hide that they were not picked
        fault = "nobody has|too many"
    picks = np.random.default_rng(0).permuted(np.tile(np.arange(EXPERTS - 4), (200, 1)), axis=1)
    block = 2 if policy.name == "nobody has" else 1
    with pytest.raises(AssertionError, match=fault):
        check_swaps(policy, picks[:, :K].astype(np.int32), 5, block)


def test_a_block_that_fades_once_instead_of_by_token_is_seen():
    picks = np.array([[1, 2], [1, 3], [4, 5]], np.int32)
    block = DEFAULT.observe(DEFAULT.start(EXPERTS), picks, 5)
    once = DEFAULT.observe(DEFAULT.start(EXPERTS), picks.reshape(1, -1), 5)
    assert not same(block, once)


@pytest.mark.parametrize("name", NAMES)
@given(drawn=tokens, room=st.integers(-1, EXPERTS + 3), seed=st.integers(0, 99))
@SETTINGS
def test_keep_keeps_the_best(name, drawn, room, seed):
    policy = POLICIES[name]
    memory = policy.observe(policy.start(EXPERTS), array(drawn), 8)
    present = np.random.default_rng(seed).random(EXPERTS) < 0.6
    kept = policy.keep(memory, present, room)
    rank = policy.rank(memory)
    order = sorted(np.flatnonzero(present), key=lambda e: (-rank[e], e))
    assert np.flatnonzero(kept).tolist() == sorted(order[: max(0, room)])


@pytest.mark.parametrize("name", ["decayed-lfu", "lfu"])
@given(drawn=tokens, slots=st.integers(1, EXPERTS))
@SETTINGS
def test_worth_is_the_sum_over_all_picks(name, drawn, slots):
    """Bound: every count is a sum of at most n = 150 positive terms, whose weights are powers by
    repeated products, so its relative error is below 3 n eps = 1e-13; the reference's is less."""
    policy, picks = POLICIES[name], array(drawn)
    rank = policy.rank(policy.observe(policy.start(EXPERTS), picks, slots))
    slow = cache_replay.faded(policy.span, policy.recency, policy.short_decay)
    expected = [slow(picks.tolist(), expert, slots) for expert in range(EXPERTS)]
    assert np.allclose(rank, expected, rtol=1e-12, atol=0)


def test_a_pick_of_this_moment_is_worth_one():
    memory = DEFAULT.observe(DEFAULT.start(EXPERTS), np.array([[3, 5, -1, -1]], np.int32), 4)
    assert np.allclose(DEFAULT.rank(memory)[[3, 5]], 1)
    assert DEFAULT.rank(memory).sum() == pytest.approx(2)


def test_a_long_run_neither_overflows_nor_forgets_the_ratio():
    """3,000 tokens at decay 0.7 are a factor of 10^464: powers of two are taken out on the way."""
    policy, memory = replace(DEFAULT, span=0.5), DEFAULT.start(EXPERTS)
    for number in range(3000):
        memory = policy.observe(memory, np.array([[number % 2, 2 + number % 3]], np.int32), 1)
    rank = policy.rank(memory)
    assert np.isfinite(memory.long).all()
    assert np.isfinite(memory.short).all()
    assert rank[1] > rank[0] > 0
    assert rank[1] / rank[0] == pytest.approx(_two_by_turns(policy), rel=1e-12)


def _two_by_turns(policy):
    """Last pick over the one before, of two experts picked by turns for ever."""
    shares = [(1 / (1 - d * d), w) for d, w in ((0.5, 1), (policy.short_decay, policy.recency))]
    ours = sum(total * weight for total, weight in shares)
    theirs = 0.5 * shares[0][0] + policy.short_decay * policy.recency * shares[1][0]
    return ours / theirs


def test_equal_worth_goes_to_the_lower_id():
    policy = replace(DEFAULT, margin=0.0, bound=None)
    memory = policy.observe(policy.start(8), np.array([[6, 1, 4, 3]], np.int32), 2)
    nobody = np.zeros(8, bool)
    picked = np.array([6, 1, 4, 3], np.int32)
    assert policy.swaps(memory, nobody, 2, picked) == (Swap(1, None), Swap(3, None))
    present = np.isin(np.arange(8), [1, 3, 4, 6])
    assert np.flatnonzero(policy.keep(memory, present, 2)).tolist() == [1, 3]
    memory = policy.observe(memory, np.array([[0]], np.int32), 2)
    inside = np.isin(np.arange(8), [3, 6])
    assert policy.swaps(memory, inside, 2, np.array([0], np.int32)) == (Swap(0, 6),)


def test_hysteresis_stops_two_equals_from_changing_places():
    """Two experts by turns, one slot: without a margin each pick is a swap."""
    turns = np.array([[number % 2] for number in range(40)], np.int32)
    moves = {}
    for margin in (0.0, DEFAULT.margin):
        policy = replace(DEFAULT, margin=margin)
        memory, resident, moved = policy.start(2), np.zeros(2, bool), 0
        for row in turns:
            memory = policy.observe(memory, row[None], 1)
            for swap in policy.swaps(memory, resident, 1, row):
                resident[:] = False
                resident[swap.incoming] = True
                moved += 1
        moves[margin] = moved
    assert moves == {0.0: 40, DEFAULT.margin: 1}


def test_only_a_block_considers_whom_its_last_token_did_not_pick():
    memory = DEFAULT.observe(DEFAULT.start(8), np.array([[1], [2], [3]], np.int32), 4)
    last, nobody = np.array([3], np.int32), np.zeros(8, bool)
    assert DEFAULT.swaps(memory, nobody, 4, last) == (Swap(3, None),)
    block = DEFAULT.swaps(memory, nobody, 4, last, tokens=3)
    assert block == (Swap(3, None), Swap(2, None), Swap(1, None))


def test_static_fills_free_slots_and_replaces_nobody():
    policy = POLICIES["static"]
    memory = policy.observe(policy.start(8), np.array([[1]] + [[2]] * 50, np.int32), 1)
    picked = np.array([2], np.int32)
    assert policy.swaps(memory, np.zeros(8, bool), 1, picked) == (Swap(2, None),)
    assert policy.swaps(memory, np.arange(8) == 1, 1, picked) == ()
    assert [name for name, each in POLICIES.items() if each.fixed] == ["static"]


@pytest.mark.parametrize("name", NAMES)
def test_saved_scores_give_the_same_order_again(name):
    policy = POLICIES[name]
    scores = np.array([0.0, 3.5, 1.25, 0.0, 7.0])
    memory = policy.seeded(policy.start(5), scores)
    assert np.argsort(-policy.rank(memory), kind="stable").tolist() == [4, 1, 2, 0, 3]
    assert (policy.rank(memory)[[0, 3]] == 0).all()
    again = policy.observe(memory, np.array([[2]], np.int32), 2)
    assert policy.rank(again)[2] > policy.rank(memory)[2]


def test_scores_are_what_seeding_takes():
    policy = DEFAULT
    memory = policy.observe(policy.start(6), np.array([[1, 2]] * 9 + [[3, 4]], np.int32), 2)
    assert np.allclose(policy.seeded(policy.start(6), memory.scores).scores, memory.scores)


def test_fewer_slots_forget_sooner():
    assert DEFAULT.decay(6) < DEFAULT.decay(29) < 1
    assert POLICIES["lfu"].decay(6) == 1


def test_memories_are_never_changed():
    memory = DEFAULT.start(EXPERTS)
    DEFAULT.observe(memory, np.array([[1, 2, 3, 4]], np.int32), 4)
    assert same(memory, Memory(np.zeros(EXPERTS + 1), np.zeros(EXPERTS + 1)))
