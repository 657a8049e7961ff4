"""The simulator against a slow one, Belady against trying everything, and what is claimed of the
default policy on the published trace: each claim with a policy that must miss it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.cache.policy import DEFAULT, POLICIES
from hybrid.cache.simulate import BLOCK, Step, replay, replay_bound, replay_ram, steps
from hybrid.cache.trace_file import Trace
from tests.cache.routing import made, published
from tests.reference import cache_replay

SLOW = {
    "decayed-lfu": cache_replay.faded(DEFAULT.span, DEFAULT.recency, DEFAULT.short_decay),
    "lfu": cache_replay.faded(),
    "lru": cache_replay.last_pick,
}


@pytest.fixture(scope="module")
def kimi_linear():
    return published()


def lists(trace, layer):
    return trace.picks[:, layer].tolist()


@pytest.mark.parametrize("slots", [1, 3, 9, 39])
@pytest.mark.parametrize("name", sorted(SLOW))
def test_the_device_as_told_slowly(name, slots):
    trace, policy = made(), POLICIES[name]
    played = replay(trace, policy, slots)
    hits, moves = np.array(
        [
            cache_replay.replay(
                lists(trace, layer), trace.experts, slots, SLOW[name],
                margin=policy.margin, bound=policy.bound,
            )
            for layer in range(trace.layers)
        ]
    ).sum(axis=0)  # fmt: skip
    assert played.hit_rate == hits.sum() / trace.picks.size
    assert played.warm_hit_rate == hits[30:].sum() / (trace.picks.size / 2)
    assert played.promotions_per_layer_step == moves.sum() / (60 * trace.layers)
    assert played.warm_promotions_per_layer_step == moves[30:].sum() / (30 * trace.layers)
    assert played.misses_per_layer_step == pytest.approx(4 * (1 - played.hit_rate))


@pytest.mark.parametrize("slots", [1, 3, 9, 39])
@pytest.mark.parametrize("name", sorted(SLOW))
def test_ram_as_told_slowly(name, slots):
    trace = made()
    played = replay_ram(trace, POLICIES[name], slots)
    hits = sum(
        sum(cache_replay.replay_free(lists(trace, layer), trace.experts, slots, SLOW[name]))
        for layer in range(trace.layers)
    )
    assert played.hit_rate == hits / trace.picks.size
    assert played.promotions_per_layer_step == played.misses_per_layer_step


@pytest.mark.parametrize("changes", [{"margin": 1.4}, {"bound": 2}, {"short_decay": 0.69}])
def test_a_slightly_different_policy_is_told_from_the_default(changes):
    """The slow replay of the default must not agree with any other."""
    trace = made(tokens=120, layers=4)
    other = replay(trace, replace(DEFAULT, **changes), 9)
    assert other != replay(trace, DEFAULT, 9)


@given(
    picks=st.lists(
        st.lists(st.integers(0, 5), min_size=2, max_size=2, unique=True), min_size=1, max_size=8
    ),
    slots=st.integers(0, 4),
)
@settings(max_examples=60, deadline=None)
def test_nobody_can_beat_the_bound_and_somebody_can_reach_it(picks, slots):
    array = np.array(picks, np.int32)[:, None]
    trace = Trace(array, np.zeros(len(picks), bool), 6)
    most = cache_replay.most_hits(picks, slots)
    assert replay_bound(trace, slots).hit_rate == pytest.approx(most / array.size)


@pytest.mark.parametrize("slots", [0, 2, 5, 12, 40, 60])
def test_every_policy_stays_below_the_bound(slots):
    trace = made(seed=3)
    bound = replay_bound(trace, slots).hit_rate
    for policy in POLICIES.values():
        assert policy.fixed or replay(trace, policy, slots).hit_rate <= bound
        assert policy.fixed or replay_ram(trace, policy, slots).hit_rate <= bound
    if slots >= trace.experts:
        first = replay(trace, POLICIES["lru"], slots)
        assert first.hit_rate == bound, "with room for all only first picks are missed"


def test_a_replay_is_the_same_every_time():
    trace = made(seed=5)
    for policy in POLICIES.values():
        assert replay(trace, policy, 7) == replay(trace, policy, 7)


def test_a_layer_can_have_slots_of_its_own():
    trace = made(layers=2)
    alone = [replace(trace, picks=trace.picks[:, [layer]]) for layer in (0, 1)]
    both = replay(trace, DEFAULT, np.array([3, 11]))
    apart = [replay(one, DEFAULT, room) for one, room in zip(alone, (3, 11), strict=True)]
    assert both.hit_rate == pytest.approx(np.mean([each.hit_rate for each in apart]))
    assert both.slots == 7


def test_a_prompt_is_taken_in_blocks():
    prompt = np.array([True] * (BLOCK + 2) + [False] * 2 + [True])
    last = BLOCK + 4
    assert list(steps(prompt)) == [
        Step(0, BLOCK, True),
        Step(BLOCK, BLOCK + 2, True),
        Step(BLOCK + 2, BLOCK + 3, False),
        Step(BLOCK + 3, last, False),
        Step(last, last + 1, True),
    ]


def test_a_prompt_warms_the_cache_and_is_not_counted():
    cold, warm = made(prompt=0), made(prompt=30)
    assert replay(warm, DEFAULT, 9).hit_rate == replay(warm, DEFAULT, 9).hit_rate
    assert replay(warm, DEFAULT, 9).misses_per_layer_step <= 4
    second_half = replace(cold, picks=cold.picks[30:], prompt=cold.prompt[30:])
    assert replay(warm, DEFAULT, 9).hit_rate > replay(second_half, DEFAULT, 9).hit_rate


def test_picks_of_nobody_do_not_count():
    trace = made(k=3)
    holes = trace.picks.copy()
    holes = np.concatenate([holes, np.full_like(holes[..., :1], -1)], axis=-1)
    for play in (replay, replay_ram):
        assert play(replace(trace, picks=holes), DEFAULT, 5) == play(trace, DEFAULT, 5)
    assert replay_bound(replace(trace, picks=holes), 5) == replay_bound(trace, 5)


# What is claimed: warm half of 300 tokens of Kimi-Linear, begun cold.

CLAIM_11 = (29, 0.52, 0.40)  # slots, least warm hit rate, most promotions a layer-step
CLAIM_2 = (6, 0.27, 0.40)


def meets(trace, policy, claim):
    slots, least, most = claim
    played = replay(trace, policy, slots)
    promotions = (played.promotions_per_layer_step, played.warm_promotions_per_layer_step)
    return played.warm_hit_rate >= least, max(promotions) <= most


@pytest.mark.parametrize("claim", [CLAIM_11, CLAIM_2], ids=["11%", "2.3%"])
def test_the_default_meets_its_claims(kimi_linear, claim):
    assert meets(kimi_linear, DEFAULT, claim) == (True, True)


@pytest.mark.parametrize(
    ("claim", "changes", "missed"),
    [
        (CLAIM_11, {"margin": 0.0}, "promotions"),
        (CLAIM_11, {"span": None, "recency": 0.0, "margin": 0.0}, "hits"),
        (CLAIM_2, {"span": None, "recency": 0.0, "margin": 0.0}, "hits"),
        (CLAIM_2, {"margin": 0.0}, "promotions"),
        (CLAIM_2, {"bound": None, "margin": 0.0}, "promotions"),
    ],
    ids=["no hysteresis", "no decay", "no decay, few slots", "swaps at will", "all in"],
)
def test_a_worse_policy_misses_them(kimi_linear, claim, changes, missed):
    hits, promotions = meets(kimi_linear, replace(DEFAULT, **changes), claim)
    assert not (hits if missed == "hits" else promotions)


def test_a_list_over_all_layers_falls_off_a_cliff(kimi_linear):
    """156 slots are less than the 208 that a token needs: what it needs next is always gone."""
    slots, least, _ = CLAIM_2
    hits = cache_replay.global_lru(kimi_linear.picks.tolist(), slots * kimi_linear.layers)
    assert sum(hits) == 0 < least


@pytest.mark.parametrize("slots", [6, 29, 101])
def test_never_much_worse_than_lru_for_a_fraction_of_its_copies(kimi_linear, slots):
    ours, lru = (replay(kimi_linear, POLICIES[name], slots) for name in ("decayed-lfu", "lru"))
    assert ours.warm_hit_rate >= lru.warm_hit_rate - 0.03
    assert ours.warm_promotions_per_layer_step <= lru.warm_promotions_per_layer_step / 3


@pytest.mark.parametrize("slots", [12, 64, 128])
def test_ram_over_a_file_beats_lru(kimi_linear, slots):
    ours, lru = (replay_ram(kimi_linear, POLICIES[name], slots) for name in ("decayed-lfu", "lru"))
    assert ours.warm_hit_rate > lru.warm_hit_rate
    faded_slowly = replay_ram(kimi_linear, POLICIES["lfu"], slots)
    assert faded_slowly.warm_hit_rate < ours.warm_hit_rate


@pytest.mark.parametrize(
    ("slots", "warm_lru", "bound", "warm_bound"),
    [
        (29, 0.549, 0.730, 0.729),
        (64, 0.731, 0.845, 0.864),
        (101, 0.839, 0.895, 0.930),
        (128, 0.891, 0.910, 0.959),
    ],
)
def test_numbers_that_others_have_replayed(kimi_linear, slots, warm_lru, bound, warm_bound):
    """Three digits were published, so half a unit of the third is what may differ."""
    lru, best = replay(kimi_linear, POLICIES["lru"], slots), replay_bound(kimi_linear, slots)
    assert lru.warm_hit_rate == pytest.approx(warm_lru, abs=0.0005)
    assert best.hit_rate == pytest.approx(bound, abs=0.0005)
    assert best.warm_hit_rate == pytest.approx(warm_bound, abs=0.0005)
