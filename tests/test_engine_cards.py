"""The whole engine with its backbone and experts on cards, which here are made of threads."""

import logging

import numpy as np
import pytest

import hybrid
from hybrid import loader
from hybrid.accelerator.host import HostAccelerator
from hybrid.cache.split import Costs
from hybrid.errors import PlacementError
from hybrid.tiny import TinyShape, write_tiny

SHAPE = TinyShape(num_hidden_layers=3, n_routed_experts=8, num_experts_per_tok=3)
LONG = list(range(300, 340))  # more than a block of a prompt that is not streamed
GB = 10**9
FREE = 4 * GB


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("cards") / "model", SHAPE, vision=True)


@pytest.fixture
def with_cards(monkeypatch):
    """Load with cards, each with so many bytes free; returns what loads, and the cards in use."""

    def prepare(*free, streaming=None, link_gb_s=None):
        cards = tuple(HostAccelerator(f"card {i}", link_gb_s) for i in range(len(free)))
        monkeypatch.setattr(loader, "_resolve_device", lambda device: "cuda")
        monkeypatch.setattr(loader, "_cards", lambda: (cards, list(free)))
        monkeypatch.setattr(loader, "_streaming", lambda *_: streaming)
        return cards

    return prepare


def said(model_dir, **options):
    """Logits of a prompt and then of tokens one by one, and who computed experts."""
    with hybrid.load(
        model_dir, kv_tokens=256, activation="int8", warm_start=False, **options
    ) as engine:
        first = engine.logits(LONG)
        steps = [engine._timeline.step(token) for token in (301, 302, 303)]
        return np.concatenate([first, *(np.atleast_2d(step) for step in steps)]), engine.stats()


def costs():
    """A link and a device so fast that all experts are streamed."""
    return Costs(
        record_bytes=3456, token_flop=12288, link_gb_s=1e3, device_gb_s=1e4, device_gflop_s=1e6,
        cpu_gb_s=1e-3, cpu_gflop_s=1e-3,
    )  # fmt: skip


@pytest.mark.parametrize("cards", [1, 3])
@pytest.mark.parametrize("slots", [0, 5, None])
def test_where_experts_lie_changes_no_bit(model_dir, with_cards, cards, slots):
    budget = None if slots is None else slots * 3456
    with_cards(FREE)
    want, _ = said(model_dir, vram_budget=0)
    with_cards(*[FREE] * cards)
    got, stats = said(model_dir, vram_budget=budget)
    assert got.tobytes() == want.tobytes()
    assert (stats["tiers"]["vram"]["expert_reads"] > 0) is (slots != 0)


def test_a_streamed_prompt_changes_no_bit(model_dir, with_cards):
    with_cards(FREE)
    want, _ = said(model_dir, vram_budget=0)
    with_cards(FREE, streaming=costs(), link_gb_s=0.5)
    got, stats = said(model_dir, vram_budget=0)
    assert got.tobytes() == want.tobytes()
    assert stats["tiers"]["vram"]["streamed"]["records"] > 0
    assert stats["device"]["syncs"] > 0


def test_int8_weights_are_used_where_asked(model_dir, with_cards):
    """Close to bf16's, and not equal. Which codes: tests/gpu_attention."""
    with_cards(FREE)
    exact, _ = said(model_dir)
    coded, _ = said(model_dir, backbone_weights="int8")
    off = np.sqrt(np.mean((coded - exact) ** 2) / np.mean((exact - exact.mean()) ** 2))
    assert 0 < off < 0.05


def test_a_card_that_is_too_small(model_dir, with_cards, caplog):
    with_cards(GB // 10)
    with pytest.raises(PlacementError, match="GB of device memory") as caught:
        hybrid.load(model_dir, device="cuda", kv_tokens=256)
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING), hybrid.load(model_dir, kv_tokens=256) as engine:
        assert engine.options.device == "cpu"
    assert "the CPU computes everything" in caplog.text


def test_cards_are_closed_with_the_engine_and_when_loading_fails(
    model_dir, with_cards, monkeypatch
):
    closed = []
    monkeypatch.setattr(HostAccelerator, "close", lambda card: closed.append(card.name))
    with_cards(FREE, FREE)
    hybrid.load(model_dir, kv_tokens=256).close()
    assert sorted(closed) == ["card 0", "card 1"]
    closed.clear()
    monkeypatch.setattr(loader, "load_tiers", _failing)
    with pytest.raises(PlacementError):
        hybrid.load(model_dir, kv_tokens=256)
    assert sorted(closed) == ["card 0", "card 1"]


def _failing(*_):
    raise PlacementError("no room")
