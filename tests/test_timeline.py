"""Prefix reuse, cancellation and limits: what is computed changes, what comes out does not."""

import numpy as np
import pytest

import hybrid
from hybrid import timeline as module
from hybrid.errors import ContextTooLongError
from hybrid.progress import Progress
from hybrid.timeline import Timeline
from hybrid.vision.prompt import Prompt

KV_TOKENS = 640  # more than one block


class Stop(Exception):  # noqa: N818
    """Raised by a poll to abandon a block."""


@pytest.fixture(scope="module")
def engine(tiny_dir):
    return hybrid.load(tiny_dir, device="cpu", kv_tokens=KV_TOKENS)


@pytest.fixture
def timeline(engine):
    return Timeline(engine._timeline.model)


def prompt(tokens: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 768, tokens).tolist()


def fresh(engine, ids: list[int]) -> np.ndarray:
    return Timeline(engine._timeline.model).prefill(Prompt(ids))[0]


def test_a_shared_prefix_is_reused_and_changes_nothing(engine, timeline):
    first, second = prompt(50), prompt(30) + prompt(30, seed=1)
    timeline.prefill(Prompt(first))
    logits, cached = timeline.prefill(Prompt(second))
    assert cached == 30
    assert timeline.tokens == second
    assert np.array_equal(logits, fresh(engine, second))


def test_the_last_token_is_always_computed(engine, timeline):
    ids = prompt(20)
    timeline.prefill(Prompt(ids))
    logits, cached = timeline.prefill(Prompt(ids))
    assert cached == 19
    assert np.array_equal(logits, fresh(engine, ids))
    logits, cached = timeline.prefill(Prompt(ids[:5]))
    assert cached == 4
    assert np.array_equal(logits, fresh(engine, ids[:5]))


def test_steps_extend_what_the_next_prompt_may_reuse(engine, timeline):
    ids = prompt(10)
    timeline.prefill(Prompt(ids))
    for token in (5, 6, 7):
        logits = timeline.step(token)
    assert np.array_equal(logits, fresh(engine, [*ids, 5, 6, 7]))
    _, cached = timeline.prefill(Prompt([*ids, 5, 6, 8]))
    assert cached == 12


def test_prefill_reports_every_layer_of_every_block_and_every_pass(timeline, monkeypatch):
    monkeypatch.setattr(module, "PASS_TOKENS", 560)  # two blocks
    seen: list[Progress] = []
    timeline.prefill(Prompt(prompt(600)), sink=seen.append)
    first = [560 * poll // 8 for poll in range(8)]  # 4 layers
    assert [p.done for p in seen] == [*first, 560, 560 + 10, 560 + 20, 560 + 30, 600]
    assert {(p.phase, p.unit, p.total) for p in seen} == {("prefill", "tokens", 600)}


@pytest.mark.parametrize(("size", "block"), [(1, 1), (7, 3), (64, 64), (200, 64), (1000, 33)])
def test_passes_and_blocks_change_nothing(engine, monkeypatch, size, block):
    ids = prompt(150)
    wanted = fresh(engine, ids)
    monkeypatch.setattr(module, "PASS_TOKENS", size)
    monkeypatch.setattr(engine._timeline.model.backbone, "max_block", block)
    assert np.array_equal(fresh(engine, ids), wanted)


def test_experts_take_all_blocks_of_a_pass_at_once(engine, timeline, monkeypatch):
    """Which is what a pass is for: their weights are read once."""
    monkeypatch.setattr(engine._timeline.model.backbone, "max_block", 50)
    seen = []
    with engine.record(lambda layer, start, ids, *_: seen.append((layer, start, len(ids)))):
        timeline.prefill(Prompt(prompt(150)))
    assert seen == [(layer, 0, 150) for layer in (1, 2, 3)]


@pytest.mark.parametrize("layer", [0, 1, 3, 4, 6])
def test_a_cancelled_prefill_leaves_only_whole_passes(engine, timeline, layer, monkeypatch):
    monkeypatch.setattr(module, "PASS_TOKENS", 512)
    ids, calls = prompt(600), iter(range(-1, 1000))  # asked once before the first layer

    def poll():
        if next(calls) == layer:
            raise Stop

    timeline.prefill(Prompt(prompt(8, seed=2)))
    with pytest.raises(Stop):
        timeline.prefill(Prompt(ids), poll)
    assert timeline.tokens == ids[: 512 * (layer // 4)]
    assert np.array_equal(timeline.prefill(Prompt(ids))[0], fresh(engine, ids))


def test_a_prefill_that_may_not_begin_changes_nothing(timeline):
    known = prompt(8, seed=2)
    timeline.prefill(Prompt(known))
    with pytest.raises(Stop):
        timeline.prefill(Prompt(prompt(600)), poll=_stop)
    assert timeline.tokens == known


def test_a_cancelled_step_can_be_taken_again(engine, timeline):
    ids = prompt(9)
    timeline.prefill(Prompt(ids[:-1]))
    with pytest.raises(Stop):
        timeline.step(ids[-1], poll=_stop)
    assert timeline.tokens == ids[:-1]
    assert np.array_equal(timeline.step(ids[-1]), fresh(engine, ids))


def _stop():
    raise Stop


def test_more_than_the_cache_holds_is_refused_before_anything_changes(timeline):
    timeline.prefill(Prompt(prompt(7)))
    with pytest.raises(ContextTooLongError, match="641 tokens but the KV cache holds 640"):
        timeline.prefill(Prompt(prompt(641)))
    with pytest.raises(ContextTooLongError):
        timeline.all_logits(Prompt(prompt(641)))
    assert len(timeline.tokens) == 7


def test_a_stale_row_would_be_seen(engine, timeline):
    """The check itself: reusing one token too many gives other logits."""
    first, second = prompt(50), prompt(30) + prompt(30, seed=1)
    timeline.prefill(Prompt(first))
    timeline.tokens[:31] = second[:31]  # claim a row that belongs to another token
    logits, _ = timeline.prefill(Prompt(second))
    assert not np.array_equal(logits, fresh(engine, second))
