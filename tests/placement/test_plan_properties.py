"""What must hold on every machine: more never predicts slower, nothing exceeds, bytes add up."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.hardware import Cpu, Disk, Gpu, Hardware, Ram
from hybrid.inventory import take_inventory
from hybrid.placement import PlanOptions, builtin_config, plan, speed
from hybrid.placement.cards import free_vram, in_order
from hybrid.placement.share import free_ram

K25 = builtin_config()
GIB = 1 << 30
LOADED = sum(each.loaded_bytes for each in take_inventory(K25).components)


@st.composite
def gpus(draw):
    """A card whose arithmetic suits its memory, as that of every card does."""
    return Gpu(
        vram_bytes=draw(st.integers(4, 200)) * GIB,
        peak_gb_s=draw(st.floats(400, 4000)),
        pcie_gen=draw(st.integers(3, 5)),
        pcie_width=draw(st.sampled_from([4, 8, 16])),
    )


@st.composite
def machines(draw):
    isas = ["avx2", "avxvnni", "avx512bw", "avx512vnni", "amx"]
    return Hardware(
        cpu=Cpu(
            isa=draw(st.sampled_from(isas)),
            cores=draw(st.integers(2, 64)),
            nodes=draw(st.integers(1, 2)),
        ),
        ram=Ram(total_bytes=draw(st.integers(8, 1600)) * GIB, peak_gb_s=draw(st.floats(20, 1300))),
        gpus=tuple(draw(st.lists(gpus(), max_size=2))),
        disk=Disk(peak_gb_s=draw(st.floats(0.5, 30))),
    )


@st.composite
def requests(draw):
    ways = [
        ("auto", "bf16"), ("cpu", "bf16"), ("cuda", "bf16"), ("auto", "int8"), ("cpu", "int8"),
        ("cuda", "int8"), ("auto", "auto"),
    ]  # fmt: skip
    device, weights = draw(st.sampled_from(ways))
    return PlanOptions(
        context=draw(st.sampled_from([1024, 32768, 262144])),
        vision=draw(st.booleans()),
        device=device,
        backbone_weights=weights,
        routing=draw(st.sampled_from(["local", "uniform"])),
    )


def grow(machine, part, factor):
    """The same machine with more of one thing."""
    ram, disk = machine.ram, machine.disk
    if part == "ram":
        return replace(machine, ram=replace(ram, total_bytes=int(ram.total_bytes * factor)))
    if part == "bandwidth":
        return replace(machine, ram=replace(ram, peak_gb_s=ram.peak_gb_s * factor))
    if part == "disk":
        return replace(machine, disk=replace(disk, peak_gb_s=disk.peak_gb_s * factor))
    if part == "cores":
        cores = int(machine.cpu.cores * factor)
        return replace(machine, cpu=replace(machine.cpu, cores=cores))
    if part == "vram":
        cards = [replace(g, vram_bytes=int(g.vram_bytes * factor)) for g in machine.gpus]
    else:
        cards = [replace(g, peak_gb_s=g.peak_gb_s * factor) for g in machine.gpus]
    return replace(machine, gpus=tuple(cards))


def slower(less, more):
    """Speeds that went down, by name."""
    pairs = {"decode": (less.decode_tok_s, more.decode_tok_s)}
    pairs["uniform"] = (less.decode_tok_s_uniform, more.decode_tok_s_uniform)
    for kind in ("decode_tok_s_at", "prefill_tok_s"):
        before, after = getattr(less, kind), getattr(more, kind)
        pairs |= {f"{kind} {name}": (before[name], after[name]) for name in before}
    # printed to four decimals; a card is chosen by its speed at the start of an answer
    return {name: pair for name, pair in pairs.items() if pair[1] < pair[0] - 1e-3}


@settings(max_examples=120, deadline=None)
@given(
    machine=machines(),
    options=requests(),
    part=st.sampled_from(["ram", "bandwidth", "disk", "cores", "vram", "gpu memory rate"]),
    factor=st.floats(1, 8),
)
def test_more_never_predicts_slower(machine, options, part, factor):
    less, more = plan(K25, machine, options), plan(K25, grow(machine, part, factor), options)
    assert more.fits or not less.fits
    if part == "vram" and not enough_in_vram(machine, less, more):
        return
    worse = slower(less, more)
    if chosen(less) != chosen(more):
        worse = {name: pair for name, pair in worse.items() if name == "decode"}
    assert not worse


def chosen(found):
    """What "auto" was resolved to."""
    return found.settings["device"], found.settings["backbone_weights"]


def enough_in_vram(machine, less, more):
    """Whether more of it can only help: fast cards, as many as before, all of them in use.

    A slow card that holds more of the experts, and a card that begins to take part over a slow
    link, cost time; the runtime uses what it is given.
    """
    cpu = 0.9 * 0.75 * machine.ram.peak_gb_s
    same = len(less.cards) == len(more.cards) and all(
        before["bytes"].keys() == after["bytes"].keys()
        for before, after in zip(less.cards, more.cards, strict=True)
    )
    return same and all(0.8 * card.peak_gb_s >= cpu for card in machine.gpus)


@settings(max_examples=100, deadline=None)
@given(machine=machines(), options=requests(), budget=st.none() | st.integers(0, 1000 * GIB))
def test_no_plan_exceeds_its_budgets(machine, options, budget):
    found = plan(K25, machine, replace(options, ram_budget=budget))
    if not found.fits:
        assert found.decode_tok_s == 0 == found.prefill_tok_s["2048"]
        assert any("more of free" in line for line in found.advice)
        return
    used = {tier: sum(row.get(tier, 0) for row in found.bytes.values()) for tier in ("ram", "vram")}
    assert used["ram"] <= free_ram(machine)
    cards = in_order(machine)
    assert used["vram"] == sum(sum(card["bytes"].values()) for card in found.cards)
    for card, row in zip(cards, found.cards, strict=False):
        assert sum(row["bytes"].values()) <= free_vram(card)
    if budget is not None:
        least = 4 * 24_772_608  # working slots that no budget can deny (hybrid/cache/capacity.py)
        experts = found.bytes["routed"]["ram"] + found.bytes["working_slots"]["ram"]
        assert experts <= max(budget, least) + 2 * 24_772_608


@settings(max_examples=60, deadline=None)
@given(machine=machines(), context=st.sampled_from([1024, 32768]), users=st.integers(1, 8))
def test_bytes_add_up_to_the_checkpoint(machine, context, users):
    found = plan(K25, machine, PlanOptions(context=context, users=users))
    others = ("kv_cache", "scratch", "working_slots")
    weights = sum(sum(row.values()) for name, row in found.bytes.items() if name not in others)
    assert weights == LOADED
    assert sum(found.bytes["kv_cache"].values()) == 70_272 * context * users
    slots = found.expert_slots_per_layer
    assert sum(slots.values()) == 384
    assert min(slots.values()) >= 0


def test_a_planted_fault_is_seen(monkeypatch):
    """A token that takes longer the more of its experts are in RAM would be noticed."""
    real = speed.decode

    def wrong(model, found, where, device, depth=0, cards=None):
        parts = real(model, found, where, device, depth, cards)
        return parts | {"step": parts["step"] + 20 * where.ram}

    monkeypatch.setattr("hybrid.placement.planning.decode", wrong)
    small = Hardware(cpu=Cpu(cores=16), ram=Ram(total_bytes=128 * GIB, peak_gb_s=90))
    large = replace(small, ram=replace(small.ram, total_bytes=700 * GIB))
    assert slower(plan(K25, small), plan(K25, large))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_parts_add_up_to_the_token(device):
    card = Gpu(vram_bytes=96 * GIB, peak_gb_s=1792)
    machine = Hardware(ram=Ram(total_bytes=768 * GIB, peak_gb_s=600), gpus=(card,))
    found = plan(K25, machine, PlanOptions(device=device))
    assert found.decode_tok_s == pytest.approx(1 / sum(found.seconds.values()), abs=1e-4)
    assert found.decode_parts() == found.seconds
    deep = found.decode_tok_s_at["32768"]
    assert deep == pytest.approx(1 / sum(found.decode_parts(32768).values()), abs=1e-4)
    assert found.prefill_tok_s["8192"] == pytest.approx(
        8192 / found.prefill_seconds(8192), abs=1e-4
    )
