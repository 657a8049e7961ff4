"""The split of a prompt's experts against a clock that runs it out, and what must always hold."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.cache.split import Costs, Split, split

K25 = Costs(
    record_bytes=24_772_608, token_flop=2 * 3 * 7168 * 2048, link_gb_s=52, device_gb_s=1500,
    device_gflop_s=90_000, cpu_gb_s=400, cpu_gflop_s=8000,
)  # fmt: skip
rates = st.floats(1e-3, 1e6)


@st.composite
def costs(draw):
    return Costs(draw(st.integers(1, 10**8)), draw(st.integers(1, 10**9)), *draw(_five()))


def _five():
    return st.tuples(rates, rates, rates, rates, rates)


@st.composite
def layers(draw, most=24):
    """Tokens, who is on the device, who may move. [experts]"""
    tokens = draw(st.lists(st.integers(0, 3000), min_size=1, max_size=most))
    masks = st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens))
    return np.array(tokens, np.int64), np.array(draw(masks)), np.array(draw(masks))


def clock(found, tokens, costs):
    """Finish of device and CPU, one expert after the other."""
    link = 0.0
    device = sum(float(costs.device_s(tokens[[e]])[0]) for e in found.resident)
    for expert in found.streamed:
        link += costs.upload_s
        device = max(device, link) + float(costs.device_s(tokens[[expert]])[0])
    return device, sum(float(costs.cpu_s(tokens[[e]])[0]) for e in found.on_cpu)


def forced(tokens, resident, movable, count):
    """The split that streams the `count` busiest, without its predictions."""
    used = np.flatnonzero(tokens > 0)
    may = [int(e) for e in used if not resident[e] and movable[e]]
    queue = sorted(may, key=lambda e: (-tokens[e], e))
    rest = [e for e in used if not resident[e] and e not in queue[:count]]
    return Split(
        np.array([e for e in used if resident[e]], np.int32),
        np.array(queue[:count], np.int32), np.array(rest, np.int32), 0, 0,
    )  # fmt: skip


def seconds(found, tokens, costs):
    return max(clock(found, tokens, costs))


@settings(max_examples=100, deadline=None)
@given(layers(), costs())
def test_no_other_number_of_busiest_ends_earlier(layer, costs):
    tokens, resident, movable = layer
    found = split(tokens, resident, costs, movable)
    assert (found.device_s, found.cpu_s) == pytest.approx(clock(found, tokens, costs))
    for count in range(len(tokens) + 1):  # among them none, all: CPU only, stream only
        other = forced(tokens, resident, movable, count)
        assert found.seconds <= seconds(other, tokens, costs) * (1 + 1e-9)


@settings(max_examples=80, deadline=None)
@given(layers(), costs())
def test_every_expert_with_tokens_is_somewhere_once(layer, costs):
    tokens, resident, movable = layer
    found = split(tokens, resident, costs, movable)
    parts = np.concatenate([found.resident, found.streamed, found.on_cpu])
    assert sorted(parts.tolist()) == np.flatnonzero(tokens).tolist()
    assert resident[found.resident].all()
    assert not resident[np.concatenate([found.streamed, found.on_cpu])].any()
    assert movable[found.streamed].all()
    assert (np.diff(tokens[found.streamed]) <= 0).all()
    left = found.on_cpu[movable[found.on_cpu]]
    if len(found.streamed) and len(left):
        assert tokens[found.streamed].min() >= tokens[left].max()


@settings(max_examples=60, deadline=None)
@given(layers(most=5), costs())
def test_no_other_order_ends_earlier(layer, costs):
    """Johnson's rule, over all permutations."""
    tokens, resident, movable = layer
    found = split(tokens, resident, costs, movable)
    for order in itertools.permutations(found.streamed.tolist()):
        other = replace(found, streamed=np.array(order, np.int32))
        assert clock(found, tokens, costs)[0] <= clock(other, tokens, costs)[0] * (1 + 1e-9)


@settings(max_examples=80, deadline=None)
@given(layers(), costs(), st.sampled_from(["link", "device", "cpu"]), st.floats(1, 100))
def test_faster_parts_never_end_later(layer, costs, part, factor):
    tokens, resident, movable = layer
    names = [name for name in Costs.__slots__ if name.startswith(part)]
    faster = replace(costs, **{name: factor * getattr(costs, name) for name in names})
    before, after = (split(tokens, resident, each, movable) for each in (costs, faster))
    assert after.seconds <= before.seconds * (1 + 1e-9)


@settings(max_examples=50, deadline=None)
@given(layers(), costs())
def test_without_a_link_nothing_is_streamed(layer, costs):
    tokens, resident, movable = layer
    found = split(tokens, resident, replace(costs, link_gb_s=0), movable)
    assert len(found.streamed) == 0
    assert np.isfinite(found.seconds)


@settings(max_examples=50, deadline=None)
@given(layers(), costs())
def test_without_a_cpu_everything_that_may_is_streamed(layer, costs):
    tokens, resident, _ = layer
    found = split(tokens, resident, replace(costs, cpu_gflop_s=0))
    assert len(found.on_cpu) == 0
    assert found.cpu_s == 0
    assert np.isfinite(found.seconds)


@settings(max_examples=100, deadline=None)
@given(layers(), costs())
def test_a_link_without_limit_costs_nothing(layer, costs):
    tokens, resident, movable = layer
    free = replace(costs, link_gb_s=float("inf"))
    there = split(tokens, resident | movable, free, movable)
    assert split(tokens, resident, free, movable).seconds <= there.seconds * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(layers(), costs(), st.floats(1, 1000))
def test_a_side_that_turned_out_slower_gets_less(layer, costs, ratio):
    tokens, resident, movable = layer
    plain = split(tokens, resident, costs, movable)
    slow_device = split(tokens, resident, costs, movable, (ratio, 1.0))
    slow_cpu = split(tokens, resident, costs, movable, (1.0, ratio))
    assert len(slow_device.streamed) <= len(plain.streamed) <= len(slow_cpu.streamed)


def test_nobody_wants_anything():
    none = np.zeros(384, np.int64)
    found = split(none, np.zeros(384, np.bool_), K25)
    assert found.seconds == 0
    assert len(found.streamed) == len(found.on_cpu) == len(found.resident) == 0


def test_a_prompt_of_k25_is_shared():
    rng = np.random.default_rng(0)
    liked = 1 / np.arange(1, 385) ** 0.8
    tokens = rng.multinomial(2048 * 8, liked / liked.sum())
    found = split(tokens, np.zeros(384, np.bool_), K25)
    alone = [forced(tokens, tokens < 0, tokens >= 0, count) for count in (0, 384)]
    assert 0 < len(found.streamed) < 384
    assert all(found.seconds < 0.7 * seconds(each, tokens, K25) for each in alone)


@pytest.mark.parametrize("wrong", ["one more", "rarest first", "resident too"])
def test_a_planted_fault_is_seen(wrong):
    """What the properties above compare differs where the split is not the best, or not one."""
    rng = np.random.default_rng(0)
    tokens = rng.multinomial(2048 * 8, np.full(384, 1 / 384))
    resident = np.arange(384) < 40
    found = split(tokens, resident, K25)
    if wrong == "one more":
        other = forced(tokens, resident, tokens >= 0, len(found.streamed) + 1)
    elif wrong == "rarest first":
        busy = replace(K25, device_gflop_s=8000, cpu_gflop_s=0)  # for some longer than the link
        found = split(tokens, tokens < 0, busy)  # nothing to compute while the first comes
        other = replace(found, streamed=found.streamed[::-1])
        assert clock(found, tokens, busy)[0] < clock(other, tokens, busy)[0]
        return
    else:
        other = replace(found, streamed=np.concatenate([found.streamed, found.resident]))
    assert seconds(found, tokens, K25) < seconds(other, tokens, K25)
