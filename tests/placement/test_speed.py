"""Seconds of a token and a prompt against plain sums written out layer by layer."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid.cache.split import LEAST_TOKENS, split
from hybrid.hardware import Cpu, Gpu, Hardware, Ram, Rates
from hybrid.placement import builtin_config, speed
from hybrid.placement.cards import Together
from hybrid.placement.hits import Hits
from hybrid.placement.needs import needs
from hybrid.placement.picks import lying, picks
from hybrid.placement.rates import speeds

MODEL = needs(builtin_config(), weights="bf16", vision=False)
RATES = Rates(
    experts_gb_s=400, experts_gflop_s=8000, backbone_gb_s=350, backbone_gflop_s=4000,
    link_gb_s=50, device_gb_s=1500, device_gflop_s=90_000, disk_gb_s=12, disk_record_s=0.004,
    sync_s=30e-6, step_s=100e-6, measured=True,
)  # fmt: skip
HARDWARE = Hardware(cpu=Cpu(cores=32), ram=Ram(peak_gb_s=600), gpus=(Gpu(),), rates=RATES)
SPEEDS = speeds(HARDWARE, record_bytes=MODEL.record_bytes)
GB = 1e9
IN_RAM = Hits(0, 1, 0)


def slow_file_seconds(miss):
    """One layer's experts, over every way in which eight picks can miss."""
    record, total = MODEL.record_bytes / GB, 0.0
    for missing in itertools.product((False, True), repeat=8):
        chance = 1.0
        for missed in missing:
            chance *= miss if missed else 1 - miss
        count, seconds = sum(missing), 8 * record / 400
        if count:
            seconds = max(seconds, max(0.004, count * record / 12) + record / 400)
        total += chance * seconds
    return total


@pytest.mark.parametrize("miss", [0.0, 0.01, 0.2, 0.9, 1.0])
def test_waiting_for_the_file(miss):
    parts = speed.decode(MODEL, SPEEDS, Hits(0, 1 - miss, miss), "cpu")
    experts = parts["experts"] + parts["experts_file"]
    assert experts == pytest.approx(60 * slow_file_seconds(miss))
    if not miss:
        assert parts["experts_file"] == 0


def test_a_token_on_a_cpu_reads_the_backbone_once():
    parts = speed.decode(MODEL, SPEEDS, Hits(0, 1, 0), "cpu")
    read = sum(MODEL.backbone.values()) - MODEL.backbone["embedding"]
    backbone = sum(parts[n] for n in ("attention", "router", "dense", "shared", "head"))
    assert backbone == pytest.approx(read / 350e9)
    assert sum(parts.values()) == pytest.approx(
        read / 350e9 + 480 * MODEL.record_bytes / 400e9 + 61 * 100e-6
    )


def test_a_token_on_a_device_hides_the_shared_expert():
    parts = speed.decode(MODEL, SPEEDS, Hits(0, 1, 0), "cuda")
    shared = MODEL.backbone["shared"]
    read = sum(MODEL.backbone.values()) - MODEL.backbone["embedding"] - shared
    link = 2 * 4 * 7168 * 60 / 50e9
    assert shared / 1500e9 < parts["experts"]  # hidden
    assert sum(parts.values()) == pytest.approx(
        read / 1500e9 + 480 * MODEL.record_bytes / 400e9 + 61 * 100e-6 + 2 * 60 * 30e-6 + link
    )


def test_hits_on_a_device_are_read_there():
    half = speed.decode(MODEL, SPEEDS, Hits(0.5, 0.5, 0), "cuda")
    none = speed.decode(MODEL, SPEEDS, Hits(0, 1, 0), "cuda")
    assert half["experts"] == pytest.approx(none["experts"] / 2)
    every = speed.decode(MODEL, SPEEDS, Hits(1, 0, 0), "cuda")
    read = MODEL.backbone["shared"] + MODEL.token_experts_bytes
    assert every["experts"] == 0
    assert every["experts_device"] == pytest.approx(read / 1500e9)


@pytest.mark.parametrize(
    ("device", "flop", "gflop", "gb"),
    [("cpu", MODEL.absorbed_flop, 4000, 350), ("cuda", MODEL.absorbed_flop, 90_000, 1500)],
)
def test_a_full_cache_costs_the_longer_of_bytes_and_arithmetic(device, flop, gflop, gb):
    parts = speed.decode(MODEL, SPEEDS, Hits(0, 1, 0), device, depth=32768)
    longer = max(32768 * 70_272 / gb, 32768 * flop / gflop) / GB
    assert parts["cache"] == pytest.approx(longer)


def asked(count):
    """Tokens of each of 384 experts: quantiles of the binomial, summed up term by term."""
    chances = [math.comb(count, n) * (1 / 48) ** n * (47 / 48) ** (count - n) for n in range(200)]
    below = list(itertools.accumulate(chances))
    found = [sum(b < (e + 0.5) / 384 for b in below) for e in range(384)]
    return [n * count * 8 / sum(found) for n in found]


def slow_prompt(tokens, resident):
    """A prompt on a CPU, a pass after another."""
    seconds = MODEL.backbone["head"] / 350e9
    for start in range(0, tokens, 2048):
        count = min(2048, tokens - start)
        for name in ("attention", "router", "dense", "shared"):
            seconds += count * MODEL.token_flop[name] / 4000e9
        for position in range(start, start + count):
            seconds += (position + 1) * MODEL.absorbed_flop / 4000e9
        record = MODEL.record_bytes
        each = [max(record / 400e9, n * MODEL.expert_flop / 8000e9) for n in asked(count) if n]
        read = 60 * 384 * (1 - (47 / 48) ** count) * record * (1 - resident) / 12e9
        seconds += max(60 * sum(each), read)
        seconds += 61 * -(-count // 512) * 100e-6
    return seconds


@pytest.mark.parametrize("resident", [1.0, 0.4])
@pytest.mark.parametrize("tokens", [512, 2048, 2049, 5000])
def test_a_prompt_on_a_cpu(tokens, resident):
    """All of these are bound by arithmetic, of 10^13 operations a token and more."""
    held = Hits(0, resident, 1 - resident)
    found = sum(speed.prefill(MODEL, SPEEDS, held, "cpu", tokens).values())
    slow = slow_prompt(tokens, resident)
    # the backbone of a pass of one token is bound by its bytes: up to 18.7 GB at 350 GB/s
    slack = 18.7 / 350 if tokens % 2048 == 1 else 0
    assert slow <= found * (1 + 1e-9)
    assert found <= slow + slack + 1e-9 * slow


def test_a_prompt_on_a_device_is_faster_by_its_arithmetic():
    cpu = speed.prefill(MODEL, SPEEDS, IN_RAM, "cpu", 8192)
    device = speed.prefill(MODEL, SPEEDS, IN_RAM, "cuda", 8192)
    assert device["experts"] == cpu["experts"]
    assert device["attention"] == pytest.approx(cpu["attention"] * 4000 / 90_000)
    assert device["link"] == pytest.approx(8192 * 2 * 4 * 7168 * 60 / 50e9)
    assert sum(device.values()) < sum(cpu.values())


def test_streaming_is_the_runtimes_own_split():
    """A pass with a card takes what split.py says of a layer, with the shared expert before it."""
    cards, held = Together(), Hits(0.25, 0.75, 0)
    parts = speed.prefill(MODEL, SPEEDS, held, "cuda", 2048, cards)
    tokens = np.array(asked(2048)[::-1])
    there, missing = lying(384, 0.25, 0.0)
    assert there.sum() == 96
    assert not missing.any()
    shared = 2048 * MODEL.token_flop["shared"] / 90_000e9 / 60
    costs = speed.costs(MODEL, SPEEDS, cards)
    assert costs.link_gb_s == 50
    found = split(tokens, there, costs, busy_s=shared)
    assert 0 < len(found.streamed) < 288
    assert parts["experts"] == pytest.approx(60 * found.cpu_s)
    assert parts["experts"] + parts["experts_device"] == pytest.approx(60 * found.seconds)
    assert parts["link"] == pytest.approx(2048 * 9 * 4 * 7168 * 60 / 50e9)
    alone = speed.prefill(MODEL, SPEEDS, IN_RAM, "cuda", 2048)
    assert sum(parts.values()) < 0.8 * sum(alone.values())


def test_a_few_tokens_are_not_streamed():
    tokens = LEAST_TOKENS - 1
    few = speed.split_of_pass(MODEL, SPEEDS, IN_RAM, tokens, Together())
    assert len(few.streamed) == 0
    assert len(speed.split_of_pass(MODEL, SPEEDS, IN_RAM, 2048, Together()).streamed) > 0
    assert len(speed.split_of_pass(MODEL, SPEEDS, IN_RAM, 2048, None).streamed) == 0


def test_two_links_are_faster_than_one():
    one, two = (
        sum(speed.prefill(MODEL, SPEEDS, IN_RAM, "cuda", 2048, cards).values())
        for cards in (Together(), Together(2.0, 2.0))
    )
    assert two < one


def test_experts_of_the_file_are_the_cpus():
    found = speed.split_of_pass(MODEL, SPEEDS, Hits(0, 0.5, 0.5), 2048, Together())
    _, missing = lying(384, 0.0, 0.5)
    assert missing.sum() == 192
    assert not missing[found.streamed].any()
    assert missing[found.on_cpu].sum() == 192


@given(st.integers(0, 384), st.integers(0, 384))
def test_who_has_a_place_keeps_it(one, other):
    few, many = sorted((one, other))
    there, missing = lying(384, few / 384, 1 - many / 384)
    more, fewer = lying(384, many / 384, 1 - many / 384)
    assert (there <= more).all()
    assert not (more & fewer).any()
    assert there.sum() == few
    assert missing.sum() == 384 - many


@pytest.mark.parametrize("tokens", [1, 7, 512, 2048])
def test_picks_add_up(tokens):
    found = picks(tokens, 8, 384)
    assert found.sum() == pytest.approx(8 * tokens)
    assert (np.diff(found) <= 0).all()
    assert np.count_nonzero(found) == pytest.approx(speed.distinct(MODEL, tokens), abs=1.5)
    if tokens < 1000:
        assert found[::-1] == pytest.approx(asked(tokens))


def test_loading_reads_everything_once():
    seconds = speed.load(MODEL, SPEEDS, 100 * 10**9, "cpu")
    assert seconds == pytest.approx((100e9 + sum(MODEL.backbone.values())) / 12e9)


def test_a_planted_fault_is_seen():
    """A tenth less of the disk, one pass more: the sums above would not agree."""
    slower = replace(SPEEDS, disk_gb_s=10.8, disk_gb_s_while_computing=10.8)
    parts = speed.decode(MODEL, slower, Hits(0, 0.1, 0.9), "cpu")
    assert parts["experts"] + parts["experts_file"] != pytest.approx(60 * slow_file_seconds(0.9))
    assert sum(
        speed.prefill(MODEL, SPEEDS, Hits(0, 0.4, 0.6), "cpu", 4097).values()
    ) != pytest.approx(slow_prompt(6144, 0.4))


def test_a_model_without_experts():
    dense = replace(MODEL, moe_layers=0, experts=0, per_token=0, record_bytes=0)
    parts = speed.decode(dense, SPEEDS, Hits(0, 1, 0), "cpu")
    assert parts["experts"] == parts["experts_file"] == 0
    assert speed.prefill(dense, SPEEDS, IN_RAM, "cpu", 10)["experts"] == 0


@pytest.mark.parametrize(
    ("kernels_s", "read_s", "total"),
    [
        (0.0, 3.0, 3.0),  # nothing to slow it down
        (2.0, 0.0, 2.0),
        (1.0, 3.0, 4.0),  # kernels take 2 s, in which 1 s of reading is done; 2 s are left
        (4.0, 1.0, 5.0),  # reading takes 2 s, in which 1 s of kernels is done; 3 s are left
        (1.0, 1.0, 2.0),  # both end together
    ],
)
def test_reads_and_kernels_slow_each_other_only_while_both_work(kernels_s, read_s, total):
    rates = SimpleNamespace(
        experts_gb_s=10.0, experts_gb_s_while_reading=5.0,
        disk_gb_s=2.0, disk_gb_s_while_computing=1.0,
    )  # fmt: skip
    assert speed.beside_reads(kernels_s, read_s, rates) == pytest.approx(total)
