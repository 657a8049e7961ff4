"""Placement changes speed, never tokens: any budgets, any policy, any timing, the same bits."""

import random
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybrid import loader, reservation
from hybrid.cache import capacity, warm_start
from hybrid.cache.policy import POLICIES
from hybrid.cache.promotions import Promotions
from hybrid.cache.source import slot_bytes
from hybrid.cache.tiers import Tiers
from hybrid.errors import CheckpointError, KernelError, PlacementError
from tests.cache.tiered import (
    RECORDS,
    SHAPE,
    TIERS,
    answers,
    check_books,
    load,
    on_cards,
    shake,
    tiers_of,
    write_model,
)

IDS = list(range(300, 345))
LONG = [(7 * i) % 700 + 40 for i in range(90)]
SLOW = pytest.mark.slow
BACKGROUND = "records", "promotions", "device", "card", "ring"
TRAFFIC = {"vram": 8, "ram": 24, "cache_policy": "lru"}  # reads and swaps at every step


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("tiers") / "model")


@pytest.fixture(scope="module")
def plain(model_dir):
    with load(model_dir, None, None) as engine:
        yield engine


@pytest.fixture(scope="module")
def wanted(plain):
    """What the engine with everything in RAM says."""
    return plain.logits(LONG), answers(plain, IDS), answers(plain, IDS, seed=5)


@pytest.fixture(autouse=True)
def no_earlier_run(monkeypatch):
    """Placement then follows from the test alone."""
    monkeypatch.setattr(warm_start, "recall", lambda *_: None)


def said(engine):
    logits = engine.logits(LONG)
    return logits, answers(engine, IDS), answers(engine, IDS, seed=5)


def same(one, other):
    return np.array_equal(one[0], other[0]) and one[1:] == other[1:]


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    vram=st.integers(0, RECORDS),
    ram=st.integers(0, RECORDS),
    policy=st.sampled_from(sorted(POLICIES)),
    prefetch=st.booleans(),
    threads=st.integers(1, 3),
    block=st.sampled_from([1, 3, 17, 512]),
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(sorted(TIERS)),
)
def test_tokens_and_logits_are_the_same_wherever_the_experts_are(
    model_dir, wanted, vram, ram, policy, prefetch, threads, block, seed, kind
):
    with pytest.MonkeyPatch.context() as patch:
        on_cards(patch, kind)
        shake(patch, seed, most_s=0.0005)
        options = {"cache_policy": policy, "prefetch": prefetch, "threads": threads}
        with load(model_dir, vram, ram, **options) as engine:
            patch.setattr(engine._timeline.model.backbone, "max_block", block)
            assert same(said(engine), wanted)
            check_books(tiers_of(engine))


@pytest.mark.parametrize(
    "kind", [each if each == "threads" else pytest.param(each, marks=SLOW) for each in TIERS]
)
def test_two_thousand_steps_of_reads_and_swaps(kind, model_dir, plain, monkeypatch):
    """Step by step beside the plain engine; now and then a new prompt, an interrupt, an error."""
    on_cards(monkeypatch, kind)
    shake(monkeypatch, 1, most_s=0.0002)
    dice = random.Random(2)
    with load(model_dir, 10, 20, cache_policy="decayed-lfu") as engine:
        here, there = engine._timeline, plain._timeline
        tiers = tiers_of(engine)
        for step in range(2000):
            if step % 200 == 0:
                prompt = [dice.randrange(40, 700) for _ in range(dice.randrange(1, 60))]
                assert np.array_equal(engine.logits(prompt), plain.logits(prompt))
            if step % 333 == 50:
                _interrupt(engine, monkeypatch)
            token = dice.randrange(40, 700)
            assert np.array_equal(here.step(token), there.step(token)), step
            if step % 50 == 0:
                check_books(tiers)
        stats = tiers.stats()
        assert stats["vram"]["promotions"] > 100
        assert stats["nvme"]["expert_reads"] > 1000
        assert stats["vram"]["expert_reads"] > 1000


def _interrupt(engine, monkeypatch):
    """Ctrl-C while records are being read and the device computes."""
    backbone = engine._timeline.model.backbone

    def interrupted(*_):
        raise KeyboardInterrupt

    known = len(engine._timeline.tokens)
    with monkeypatch.context() as patch:
        patch.setattr(backbone, "shared", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine._timeline.step(77)
    assert len(engine._timeline.tokens) == known


def _believe(self, step, *, wait):
    """What is ordered is there."""
    for read in step.waiting.values():
        del step.own.reading[read.expert]
        step.own.ram[read.expert] = read.slot
    experts = list(step.waiting)
    step.waiting.clear()
    return experts


PLANTED = {
    "a promotion is published without its bytes": (Promotions, "_copy_in", lambda *_: None),
    "a demotion is published without its bytes": (Promotions, "_copy_out", lambda *_: None),
    "a record is used before it has arrived": (Tiers, "_arrived", _believe),
    "a slot is given away while in use": (
        Tiers,
        "_drop",
        lambda self, own, experts: [self.slots.give(int(own.ram[e])) for e in experts],
    ),
    "what arrives late is not computed": (
        Tiers,
        "_compute",
        lambda self, step, outputs, experts: (
            Tiers._real_compute(self, step, outputs, experts) if not step.waiting else None
        ),
    ),
}


@pytest.mark.parametrize("kind", ["threads", "two cards, streamed"])
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_shows(fault, kind, model_dir, wanted, monkeypatch):
    on_cards(monkeypatch, kind)
    monkeypatch.setattr(Tiers, "_real_compute", Tiers._compute, raising=False)
    monkeypatch.setattr(*PLANTED[fault])
    shake(monkeypatch, 3)
    with load(model_dir, **TRAFFIC) as engine:
        try:
            got = said(engine)
        except (AssertionError, KernelError, RuntimeWarning):
            return  # the books noticed first, or numpy and the sampler that rubbish overflows
        assert not same(got, wanted)


@pytest.mark.parametrize("kind", TIERS)
def test_without_a_fault_that_traffic_is_right(kind, model_dir, wanted, monkeypatch):
    on_cards(monkeypatch, kind)
    shake(monkeypatch, 3)
    with load(model_dir, **TRAFFIC) as engine:
        assert same(said(engine), wanted)
        check_books(tiers_of(engine))
        stats = engine.stats()["tiers"]
    assert stats["vram"]["promotions"] > 50
    assert stats["nvme"]["expert_reads"] > 50


def test_budgets_are_kept_and_add_up(model_dir):
    """Exclusive: what the device has takes no RAM."""
    with load(model_dir, 20, 30) as engine:
        tiers = engine.stats()["tiers"]
        assert tiers["vram"]["records"] == 20
        assert tiers["ram"]["records"] == 30 - 4  # four to read into
        assert tiers["nvme"]["source"] == "shards"
    with load(model_dir, 20, RECORDS - 20) as engine:
        tiers = engine.stats()["tiers"]
        assert tiers["vram"]["records"] + tiers["ram"]["records"] == RECORDS
        assert tiers["nvme"]["source"] is None


def test_statistics_add_up(model_dir):
    with load(model_dir, 8, 24) as engine:
        answers(engine, IDS, tokens=30)
        stats = engine.stats()["tiers"]
        layers = stats.pop("layers")
        total = engine.stats()["total"]
        per_token = 4 * SHAPE.num_experts_per_tok
        tokens = len(IDS) + total["decode_steps"]
        assert sum(tier["expert_picks"] for tier in stats.values()) == tokens * per_token
        for name, tier in stats.items():
            assert tier["expert_reads"] == sum(layer[name] for layer in layers)
            assert tier["bytes"] == tier["expert_reads"] * 3456
        assert sum(tier["share"] for tier in stats.values()) == pytest.approx(1, abs=1e-3)
        assert stats["nvme"]["reads"] >= stats["nvme"]["expert_reads"]
        assert sum(layer["predicted"] for layer in layers) == stats["nvme"]["prefetch"]["reads"]


def test_prefetch_is_right_more_often_than_chance(model_dir):
    with load(model_dir, 0, 8) as engine:
        answers(engine, IDS, tokens=60)
        prefetch = engine.stats()["tiers"]["nvme"]["prefetch"]
    assert prefetch["reads"] > 20
    assert prefetch["precision"] > 1.5 * SHAPE.num_experts_per_tok / SHAPE.n_routed_experts


def test_nothing_is_read_ahead_when_that_is_switched_off_or_in_a_prompt(model_dir):
    with load(model_dir, 0, 8, prefetch=False) as engine:
        answers(engine, IDS, tokens=20)
        assert engine.stats()["tiers"]["nvme"]["prefetch"]["reads"] == 0
    with load(model_dir, 0, 8) as engine:
        engine.logits(LONG)
        assert engine.stats()["tiers"]["nvme"]["prefetch"]["reads"] == 0


class Flaky:
    """A source of which every n-th read fails."""

    def __init__(self, source, every):
        self.source, self.every, self.kind, self.count = source, every, source.kind, 0

    def read(self, layer, expert, target):
        self.count += 1
        if self.count % self.every == 0:
            target[:] = 255  # what a failed read leaves behind
            raise CheckpointError(f"expert {expert} of layer {layer}: Input/output error")
        return self.source.read(layer, expert, target)

    def close(self):
        self.source.close()


@pytest.mark.parametrize("kind", ["threads", "two cards, streamed"])
@pytest.mark.parametrize("every", [2, 7, 40])
def test_a_disk_that_fails_is_an_error_and_then_the_right_tokens(
    every, kind, model_dir, wanted, monkeypatch
):
    on_cards(monkeypatch, kind)
    shake(monkeypatch, every)
    with load(model_dir, **TRAFFIC) as engine:
        reader = tiers_of(engine).reader
        good = reader._source
        reader._source = Flaky(good, every)
        errors = []
        for _ in range(4):
            try:
                answers(engine, IDS)
            except CheckpointError as error:
                errors.append(str(error))
            check_books(tiers_of(engine))
        assert errors or every == 40
        assert all("Input/output error" in error for error in errors)
        reader._source = good
        assert same(said(engine), wanted)


def test_a_shard_cut_short_while_running_is_an_error(tmp_path):
    model_dir = write_model(tmp_path / "model")
    with load(model_dir, 0, 0) as engine:
        for shard in model_dir.glob("*.safetensors"):
            with shard.open("r+b") as file:
                file.truncate(shard.stat().st_size // 2)
        with pytest.raises(CheckpointError) as caught:
            answers(engine, IDS)
        assert "\n" not in str(caught.value)


def leave_free(monkeypatch, records):
    """Memory beside the rest of the model: as a container's limit leaves it."""
    real, size = reservation.share_experts, slot_bytes(3456)
    monkeypatch.setattr(
        reservation,
        "share_experts",
        lambda text, options, _, on_cards: real(text, options, records * size, on_cards),
    )


def test_a_budget_beyond_the_free_memory_is_refused_before_anything_is_read(model_dir, monkeypatch):
    leave_free(monkeypatch, 20)
    monkeypatch.setattr(loader, "load_tiers", None)
    with pytest.raises(PlacementError, match="lower ram_budget and") as caught:
        load(model_dir, None, 30)
    assert "\n" not in str(caught.value)
    with pytest.raises(PlacementError, match="lower ram_budget and vram_budget"):
        load(model_dir, 15, 10)


@pytest.mark.parametrize("records", [4, 30, RECORDS - 1])
def test_too_little_memory_for_the_experts_is_no_reason_to_refuse(
    records, model_dir, wanted, monkeypatch
):
    monkeypatch.setattr(capacity, "RESERVE", 0)
    leave_free(monkeypatch, records)
    with load(model_dir, None, None) as engine:
        assert engine.stats()["tiers"]["nvme"]["source"] == "shards"
        assert same(said(engine), wanted)


def test_the_next_run_begins_with_what_this_one_learnt(model_dir, monkeypatch):
    kept = {}
    monkeypatch.setattr(warm_start, "keep", lambda key, scores: kept.update({key: scores}))
    with load(model_dir, 8, 24) as engine:
        answers(engine, IDS, tokens=30)
    monkeypatch.setattr(warm_start, "recall", lambda key, *_: kept.get(key))
    with load(model_dir, 8, 24) as engine:
        for own, scores in zip(tiers_of(engine).maps[1:], *kept.values(), strict=True):
            best = np.argsort(-scores, kind="stable")[: own.vram_slots]
            assert set(best) == set(np.flatnonzero(own.vram >= 0))


@pytest.mark.parametrize("kind", ["threads", "two cards, streamed"])
def test_a_closed_engine_leaves_no_thread_and_no_file(kind, model_dir, monkeypatch):
    on_cards(monkeypatch, kind)
    before = set(threading.enumerate())
    engine = load(model_dir, **TRAFFIC)
    answers(engine, IDS)
    engine.close()
    engine.close()  # twice is once
    left = [t.name for t in set(threading.enumerate()) - before if t.is_alive()]
    assert not [name for name in left if name.startswith(BACKGROUND)]
