"""Plan and loader never disagree: the same slots, the same refusals, by the loader's own code."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hybrid
from hybrid import loader
from hybrid.config import ModelConfig
from hybrid.errors import PlacementError
from hybrid.hardware import Gpu, Hardware, Ram
from hybrid.placement import PlanOptions, builtin_config, plan
from hybrid.placement.needs import needs
from hybrid.placement.share import expert_slots, shares

K25 = builtin_config()
MODEL = needs(K25, weights="bf16", vision=True)
GB = 10**9
budgets = st.none() | st.integers(0, 700 * GB) | st.integers(0, 400 * 10**6)


def loaders(free, options, device):
    """What hybrid/loader.py would reserve, None where it refuses."""
    asked = loader.LoadOptions(
        device=device, ram_budget=options.ram_budget, vram_budget=options.vram_budget
    )
    try:
        return loader._share_experts(K25.text, asked, free)
    except PlacementError:
        return None


@settings(max_examples=300, deadline=None)
@given(
    free=st.integers(0, 900 * GB),
    ram=budgets,
    vram=budgets,
    device=st.sampled_from(["cpu", "cuda"]),
)
def test_the_loader_reserves_the_same_slots(free, ram, vram, device):
    options = PlanOptions(ram_budget=ram, vram_budget=vram)
    logging.disable(logging.WARNING)  # that CUDA has no experts yet, every time
    try:
        theirs = loaders(free, options, device)
    finally:
        logging.disable(logging.NOTSET)
    ours = expert_slots(MODEL, free, options, device)
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
    patch(loader, "free_host_bytes", lambda: free)
    config = ModelConfig.from_dir(directory)
    asked = loader.LoadOptions(device="cpu", kv_tokens=options.context, vision=options.vision)
    with loader.Checkpoint.open(directory, config) as checkpoint:
        try:
            loader._share_memory(config.text, checkpoint, asked)
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


def test_a_device_budget_pays_for_nothing_on_cuda():
    machine = Hardware(ram=Ram(free_bytes=700 * GB), gpus=(Gpu(free_bytes=90 * GB),))
    share = shares(MODEL, machine, PlanOptions(vram_budget=50 * GB), "cuda")
    assert share.slots.device == 0
    assert share.fits
