"""What the tests of the cache share: budgets in records, slow copies, and the books of a cache."""

import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import hybrid
from hybrid import loader
from hybrid.accelerator.host import HostAccelerator
from hybrid.cache.device import HostDevice
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.source import slot_bytes
from hybrid.cache.split import Costs
from hybrid.cache.tiers import Tiers
from hybrid.cache.torch_device import TorchDevice
from hybrid.cpu_dense.backbone import CpuBackbone
from hybrid.tiny import TinyShape, write_tiny

SHAPE = TinyShape(num_hidden_layers=5, n_routed_experts=16, num_experts_per_tok=4)
RECORDS = 4 * 16
# what the device tier is made of: the link of each card in GB/s, and what prompts' experts cost
STREAMING = Costs(
    record_bytes=3456, token_flop=2 * 3 * 64 * 32, link_gb_s=1.0, device_gb_s=1.0,
    device_gflop_s=1.0, cpu_gb_s=0.01, cpu_gflop_s=0.01,
)  # fmt: skip
TIERS = {
    "threads": ((), None),
    "a card": ((None,), None),
    "a slow link": ((0.02,), None),
    "three cards": ((None, 0.05, None), None),
    "streamed": ((None,), STREAMING),
    "two cards, streamed": ((0.1, None), STREAMING),
}
FIXED = {"activation": "int8", "kv_tokens": 1024, "vision": False}


def write_model(directory: Path) -> Path:
    return write_tiny(directory, SHAPE, seed=3, vision=False)


def load(model_dir: Path, vram: int | None, ram: int | None, **options) -> hybrid.Engine:
    """An engine with budgets in records."""
    size = slot_bytes(3456)
    budgets = {
        "vram_budget": vram and vram * size,
        "ram_budget": ram if ram is None else ram * size,
    }
    return hybrid.load(model_dir, **(FIXED | {"threads": 2} | budgets | options))


def on_cards(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Let engines have a device tier of that kind, one of TIERS."""
    rates, streaming = TIERS[kind]
    if not rates:
        return

    def options(**given):
        cards = [HostAccelerator(f"card{at}", rate) for at, rate in enumerate(rates)]
        memory = range(2, 2 + len(cards))
        return made(**given | {"cards": cards, "card_memory": memory, "streaming": streaming})

    def combine(self, x, shared, routed):
        return combined(self, x, shared, np.asarray(routed))

    made, combined = loader.CacheOptions, CpuBackbone.combine
    monkeypatch.setattr(loader, "CacheOptions", options)
    monkeypatch.setattr(CpuBackbone, "combine", combine)


def tiers_of(engine: hybrid.Engine) -> Tiers:
    return engine._timeline.model.experts


def answers(engine: hybrid.Engine, ids, *, seed: int | None = None, tokens: int = 12) -> list[int]:
    """Token ids of a greedy answer, or with a seed of a sampled one."""
    sampling = hybrid.SamplingParams(
        temperature=0.0 if seed is None else 1.0, seed=seed, max_tokens=tokens
    )
    return [id for event in engine.generate(list(ids), sampling) for id in event.token_ids]


def shake(monkeypatch: pytest.MonkeyPatch, seed: int, most_s: float = 0.002) -> None:
    """Let every read, copy and device launch take its own, random time."""
    dice = random.Random(seed)

    def delayed(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def slow(*arguments):
            time.sleep(dice.random() * most_s)
            return real(*arguments)

        monkeypatch.setattr(owner, name, slow)

    delayed(HostSlots, "pull")
    for device in (HostDevice, TorchDevice):
        delayed(device, "store")
        delayed(device, "load")


def check_books(tiers: Tiers) -> None:
    """Between two steps: every slot has one owner, every record at most one place."""
    host: Counter[int] = Counter(tiers.slots._free)
    device: Counter[int] = Counter()
    moves = tiers.promotions._moves if tiers.promotions else []
    if tiers.promotions:
        device.update(tiers.promotions._free)
    for own in tiers.maps:
        if own is None:
            continue
        assert not ((own.ram >= 0) & (own.vram >= 0)).any(), "a record in two memories"
        host.update(own.ram[own.ram >= 0].tolist())
        device.update(own.vram[own.vram >= 0].tolist())
        host.update(read.slot for read in own.reading.values())
        if tiers.reader:
            kept = np.count_nonzero(own.ram >= 0) - len(own.pinned)
            assert kept <= own.ram_slots, "a layer keeps more than its share"
    host.update(move.spare for move in moves if move.spare is not None)
    device.update(move.slot for move in moves if move.spare is None)
    assert sorted(host.elements()) == list(range(tiers.slots.count)), "a slot of RAM lost or shared"
    if tiers.promotions:
        assert sorted(device.elements()) == list(range(tiers._device.count)), "a slot of the device"
