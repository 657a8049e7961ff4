"""Plan and loader never disagree: the same slots, the same refusals, by the loader's own code."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hybrid
from hybrid import reservation
from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig
from hybrid.errors import PlacementError
from hybrid.hardware import Gpu, Hardware, Ram
from hybrid.load_options import LoadOptions
from hybrid.placement import PlanOptions, builtin_config, plan
from hybrid.placement.needs import needs
from hybrid.placement.share import expert_slots, shares

K25 = builtin_config()
MODEL = needs(K25, weights="bf16", vision=True)
GB = 10**9
budgets = st.none() | st.integers(0, 700 * GB) | st.integers(0, 400 * 10**6)


def loaders(free, options, device, on_cards=0):
    """What hybrid/reservation.py would reserve, None where it refuses."""
    asked = LoadOptions(
        device=device, ram_budget=options.ram_budget, vram_budget=options.vram_budget
    )
    try:
        return reservation.share_experts(K25.text, asked, free, on_cards)
    except PlacementError:
        return None


@settings(max_examples=300, deadline=None)
@given(
    free=st.integers(0, 900 * GB),
    ram=budgets,
    vram=budgets,
)
def test_the_loader_reserves_the_same_slots(free, ram, vram):
    options = PlanOptions(ram_budget=ram, vram_budget=vram)
    theirs = loaders(free, options, "cpu")
    ours = expert_slots(MODEL, free, options, "cpu")
    if theirs is None:
        assert (ours.ram + ours.device) * MODEL.slot_bytes > free
    else:
        assert ours == theirs


@pytest.mark.parametrize("slots", [None, 0, 4, 20, 100])
def test_a_loaded_model_has_the_planned_slots(slots, tiny_dir):
    config = ModelConfig.from_dir(tiny_dir)
    model = needs(config, weights="bf16", vision=True)
    budget = None if slots is None else slots * model.slot_bytes
    with hybrid.load(tiny_dir, device="cpu", ram_budget=budget, kv_tokens=128) as engine:
        tiers = engine.stats()["tiers"]
    machine = Hardware(ram=Ram(free_bytes=4 * GB))
    found = plan(config, machine, PlanOptions(context=128, ram_budget=budget))
    assert found.fits
    assert found.bytes["routed"]["ram"] == tiers["ram"]["records"] * model.record_bytes
    assert found.bytes["routed"]["nvme"] == tiers["nvme"]["records"] * model.record_bytes


def refused(directory: Path, options: PlanOptions, free: int, patch: Callable) -> bool:
    """Whether the loader refuses on a machine with so much RAM."""
    patch(reservation, "free_host_bytes", lambda: free)
    config = ModelConfig.from_dir(directory)
    asked = LoadOptions(device="cpu", kv_tokens=options.context, vision=options.vision)
    with Checkpoint.open(directory, config) as checkpoint:
        try:
            reservation.reserve(config.text, checkpoint, asked)
        except PlacementError:
            return True
    return False


@pytest.mark.parametrize("vision", [True, False])
def test_the_loader_refuses_what_does_not_fit(tiny_dir, vision, monkeypatch):
    """Byte by byte around the least that will do."""
    config = ModelConfig.from_dir(tiny_dir)
    options = PlanOptions(context=4096, vision=vision)
    roomy = plan(config, Hardware(ram=Ram(free_bytes=4 * GB)), options)
    experts = ("routed", "working_slots", "scratch")
    rest = sum(row["ram"] for name, row in roomy.bytes.items() if name not in experts)
    least = rest + 4 * needs(config, weights="bf16", vision=vision).slot_bytes
    for free in (0, least - 1, least, least + 1):
        found = plan(config, Hardware(ram=Ram(free_bytes=free)), options)
        assert found.fits is (free >= least)
        assert refused(tiny_dir, options, free, monkeypatch.setattr) is not found.fits


def test_a_second_share_of_ram_is_not_counted_twice():
    options = PlanOptions(vram_budget=100 * GB, ram_budget=200 * GB)
    machine = Hardware(ram=Ram(free_bytes=400 * GB))
    found = plan(K25, machine, options)
    assert found.fits
    assert found.bytes["routed"]["ram"] == pytest.approx(300 * GB, rel=0.01)
    assert sum(found.expert_slots_per_layer.values()) == 384
    assert found.expert_slots_per_layer["vram"] == 100 * GB // MODEL.slot_bytes // 60


def test_a_cards_slots_are_no_ram():
    """What cards hold is not RAM's to hold, and takes none of it."""
    machine = Hardware(ram=Ram(free_bytes=400 * GB), gpus=(Gpu(free_bytes=90 * GB),))
    none = shares(MODEL, machine, PlanOptions(vram_budget=0), "cuda")
    some = shares(MODEL, machine, PlanOptions(vram_budget=50 * GB), "cuda")
    assert none.slots.device == 0
    assert some.slots.device == 50 * GB // MODEL.slot_bytes
    assert some.slots.ram == none.slots.ram
    assert some.fits
    assert some.slots.from_file
    roomy = shares(MODEL, replace(machine, ram=Ram(free_bytes=540 * GB)), PlanOptions(), "cuda")
    assert not roomy.slots.from_file  # both together hold all
    assert roomy.slots.ram * MODEL.slot_bytes < 571 * GB


@settings(max_examples=200, deadline=None)
@given(
    free=st.integers(0, 900 * GB),
    cards=st.lists(st.integers(0, 100 * GB), min_size=1, max_size=4),
    ram=budgets,
    vram=budgets,
)
def test_with_cards_the_loader_reserves_the_same_slots(free, cards, ram, vram):
    """Given what is left beside the backbone, on the host and on each card."""
    options = PlanOptions(ram_budget=ram, vram_budget=vram)
    asked = LoadOptions(device="cuda", ram_budget=ram, vram_budget=vram)
    room = reservation._on_cards(K25.text, asked, cards)
    theirs = loaders(free, options, "cuda", room.slots)
    ours = expert_slots(MODEL, free, options, "cuda", room.slots)
    if theirs is None:
        assert ours.ram * MODEL.slot_bytes > free
    else:
        assert ours == theirs


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_the_loader_refuses_a_card_that_is_too_small(tiny_dir, weights, monkeypatch):
    config = ModelConfig.from_dir(tiny_dir)
    monkeypatch.setattr(reservation, "free_host_bytes", lambda: 8 * GB)
    options = PlanOptions(context=4096, device="cuda", backbone_weights=weights)
    asked = LoadOptions(device="cuda", kv_tokens=4096, backbone_weights=weights)
    machine = Hardware(ram=Ram(free_bytes=8 * GB), gpus=(Gpu(free_bytes=4 * GB),))
    used = shares(needs(config, weights=weights, vision=True), machine, options, "cuda").table
    least = sum(
        row.get("vram", 0) for name, row in used.items() if name not in ("routed", "working_slots")
    )
    with Checkpoint.open(tiny_dir, config) as checkpoint:
        assert reservation.reserve(config.text, checkpoint, asked, [least])
        with pytest.raises(PlacementError, match="device='cpu'") as caught:
            reservation.reserve(config.text, checkpoint, asked, [least - 1])
    assert ("backbone_weights='int8'" in str(caught.value)) is (weights == "bf16")


def test_what_cards_hold_takes_no_ram_of_the_loaders():
    asked = LoadOptions(device="cuda")
    none, some = (reservation.share_experts(K25.text, asked, 400 * GB, n) for n in (0, 1000))
    assert some.device == 1000
    assert some.ram == none.ram > 0
