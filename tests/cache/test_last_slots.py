"""When slots run short: who gives way, who must not, and what is said when nothing can."""

import numpy as np
import pytest

from hybrid.backbone import Routing
from hybrid.cache import warm_start
from hybrid.cache.device import HostDevice
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.promotions import Promotions
from hybrid.cache.tiers import Tiers
from hybrid.cache.torch_device import TorchDevice
from hybrid.errors import KernelError
from tests.cache.test_interrupts import routing, step
from tests.cache.tiered import check_books, load, on_cards, shake, tiers_of, write_model

BUDGETS = [(40, 4), (8, 6), (30, 0), (12, 52)]
KINDS = ["threads", "a slow link", "two cards, streamed"]
CASES = [
    *((budgets, "threads", 300) for budgets in BUDGETS),
    ((40, 4), "a slow link", 60),
    ((8, 6), "two cards, streamed", 60),
    ((12, 52), "a card", 60),
]  # and turns


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("last") / "model")


@pytest.fixture(scope="module")
def plain(model_dir):
    with load(model_dir, None, None) as engine:
        yield tiers_of(engine)


@pytest.fixture(autouse=True)
def no_earlier_run(monkeypatch):
    monkeypatch.setattr(warm_start, "recall", lambda *_: None)
    monkeypatch.setattr(warm_start, "keep", lambda *_: None)


def play(tiers, plain, turns=300):
    rng = np.random.default_rng(5)
    for turn in range(turns):
        layer, asked = turn % 4 + 1, routing(rng, tiers.slots.shape.hidden)
        want = step(plain, rng, layer, asked)
        np.testing.assert_array_equal(step(tiers, rng, layer, asked), want)
        check_books(tiers)


def watch(monkeypatch, owner, name, seen):
    """Let `seen` look at every call of a method first."""
    real = getattr(owner, name)

    def watched(self, *arguments):
        seen(self, *arguments)
        return real(self, *arguments)

    monkeypatch.setattr(owner, name, watched)


@pytest.mark.parametrize(("budgets", "kind", "turns"), CASES, ids=str)
def test_nobody_who_is_being_copied_loses_a_slot(
    budgets, kind, turns, model_dir, plain, monkeypatch
):
    on_cards(monkeypatch, kind)
    dropped = []

    def seen(_, own, experts):
        dropped.extend(experts)
        assert not own.pinned & {int(expert) for expert in experts}

    watch(monkeypatch, Tiers, "_drop", seen)
    shake(monkeypatch, 4, most_s=0.001)
    with load(model_dir, *budgets, cache_policy="lru") as engine:
        play(tiers_of(engine), plain, turns)
    assert dropped or sum(budgets) >= 64


def test_swaps_are_hurried_only_while_the_device_is_idle(model_dir, plain, monkeypatch):
    """It may be reading the very record that a swap overwrites."""
    drained = []

    def seen(self):
        assert self._device._launched is None  # collected
        drained.append(1)

    watch(monkeypatch, Promotions, "drain", seen)
    shake(monkeypatch, 4, most_s=0.003)
    with load(model_dir, 40, 4, cache_policy="lru") as engine:
        play(tiers_of(engine), plain)
    assert drained


def watch_bytes(monkeypatch, tiers):
    """Nobody writes to a slot that a map names; errors of threads come out in the step."""

    def unnamed(name, slot):
        assert not any(slot in getattr(own, name) for own in tiers._known())

    watch(monkeypatch, HostSlots, "pull", lambda self, *given: unnamed("ram", given[-1]))
    for device in (HostDevice, TorchDevice):
        watch(monkeypatch, device, "store", lambda self, *given: unnamed("vram", given[-1]))
        watch(monkeypatch, device, "load", lambda self, *given: unnamed("ram", given[-1]))


@pytest.mark.parametrize(("budgets", "kind", "turns"), CASES, ids=str)
def test_what_a_map_names_is_never_written_to(budgets, kind, turns, model_dir, plain, monkeypatch):
    on_cards(monkeypatch, kind)
    shake(monkeypatch, 5, most_s=0.001)
    with load(model_dir, *budgets, cache_policy="lru") as engine:
        watch_bytes(monkeypatch, tiers_of(engine))
        play(tiers_of(engine), plain, min(turns, 200))
        tiers_of(engine).promotions.drain()


@pytest.mark.parametrize("device", KINDS)
@pytest.mark.parametrize("kind", ["read into", "copied over"])
def test_a_slot_that_is_given_away_too_early_would_be_seen(
    kind, device, model_dir, plain, monkeypatch
):
    """The planted faults: the bytes go before the map is changed."""

    def drop(self, own, experts):
        for expert in experts:
            self.slots.give(int(own.ram[expert]))

    def fetch(self, owner, incoming, slot):
        owner.vram[0] = slot
        real(self, owner, incoming, slot)

    real = Promotions._fetch
    on_cards(monkeypatch, device)
    with load(model_dir, 8, 24, cache_policy="lru") as engine:
        watch_bytes(monkeypatch, tiers_of(engine))
        if kind == "read into":
            monkeypatch.setattr(Tiers, "_drop", drop)
        else:
            monkeypatch.setattr(Promotions, "_fetch", fetch)
        with pytest.raises(AssertionError):
            play(tiers_of(engine), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_without_tokens_and_tokens_without_experts(kind, model_dir, plain, monkeypatch):
    on_cards(monkeypatch, kind)
    rng = np.random.default_rng(9)
    with load(model_dir, 8, 24) as engine:
        tiers = tiers_of(engine)
        for turn, tokens in enumerate((0, 1, 3) * 4):
            layer, x = turn % 4 + 1, rng.standard_normal((tokens, 64)).astype(np.float32)
            ids = np.full((tokens, 4), -1, np.int32)
            if turn > 6:
                ids[:, 2] = 5
            asked = Routing(x, ids, np.ones(ids.shape, np.float32))
            want = step(plain, rng, layer, asked)
            assert want.shape == (tokens, 64)
            np.testing.assert_array_equal(step(tiers, rng, layer, asked), want)


def test_an_expert_that_is_nowhere_is_an_error_not_other_numbers(model_dir):
    """It cannot happen; if it does, rows of an earlier step must not be taken for its output."""
    with load(model_dir, 20, 44) as engine:
        tiers, rng = tiers_of(engine), np.random.default_rng(6)
        asked = routing(rng, tiers.slots.shape.hidden)
        lost = asked.expert_ids[0, 0]
        tiers.maps[2].ram[lost] = tiers.maps[2].vram[lost] = -1
        with pytest.raises(KernelError, match=f"expert {lost} of layer 2 is in no memory"):
            step(tiers, rng, 2, asked)


def test_slots_that_are_all_lost_are_an_error_not_a_hang(model_dir):
    """It cannot happen either."""
    with load(model_dir, 0, 0) as engine:
        tiers, rng = tiers_of(engine), np.random.default_rng(7)
        while tiers.slots.take() is not None:
            pass
        with pytest.raises(KernelError, match="every slot"):
            step(tiers, rng, 1, routing(rng, tiers.slots.shape.hidden))
        step(tiers, rng, 1, routing(rng, tiers.slots.shape.hidden))  # and they are found again
        check_books(tiers)


@pytest.mark.parametrize("kind", ["threads", "streamed"])
def test_experts_with_one_slot_each_layer_and_blocks_of_all(kind, model_dir, plain, monkeypatch):
    """Four slots for sixteen experts at once."""
    on_cards(monkeypatch, kind)
    shake(monkeypatch, 8, most_s=0.0005)
    with load(model_dir, 0, 4) as engine:
        tiers, rng = tiers_of(engine), np.random.default_rng(8)
        for turn in range(40):
            asked = routing(rng, tiers.slots.shape.hidden)
            if len(asked.expert_ids) > 1:
                want = step(plain, rng, turn % 4 + 1, asked)
                got = step(tiers, rng, turn % 4 + 1, asked)
                np.testing.assert_array_equal(got, want)
                check_books(tiers)
