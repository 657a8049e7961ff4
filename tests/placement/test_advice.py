"""Advice is never just "no", and what it says is what a second plan finds."""

import re
from dataclasses import replace

import pytest

from hybrid.errors import ConfigError
from hybrid.hardware import Cpu, Disk, Gpu, Hardware, Ram
from hybrid.placement import PlanOptions, builtin_config, plan

K25 = builtin_config()
GB, GIB = 10**9, 1 << 30


def machine(ram=700 * GB, vram=None, disk=None, **more):
    cards = () if vram is None else (Gpu(free_bytes=vram, peak_gb_s=1000),)
    return Hardware(
        cpu=Cpu(cores=32, isa="avx512vnni"), ram=Ram(free_bytes=ram, peak_gb_s=400), gpus=cards,
        disk=disk, **more,
    )  # fmt: skip


def with_(found, text):
    """The first line of advice that has a text."""
    return next((line for line in found.advice if text in line), None)


def test_less_context_fits_and_one_token_more_than_said_does_not():
    here = machine(ram=40 * GB)
    options = PlanOptions(context=262_144)
    found = plan(K25, here, options)
    assert not found.fits
    context = int(re.search(r"--context (\d+):", with_(found, "--context"))[1])
    assert plan(K25, here, replace(options, context=context)).fits
    assert not plan(K25, here, replace(options, context=context + 1024)).fits


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("--backbone-weights int8", {"backbone_weights": "int8", "device": "cpu"}),
        ("--no-vision", {"vision": False}),
    ],
)
def test_each_way_out_is_true(text, change):
    here = machine(ram=26_500_000_000)
    found = plan(K25, here)
    other = plan(K25, here, replace(PlanOptions(), **change))
    line = with_(found, text + ":" if "vision" in text else text)
    assert not found.fits
    assert other.fits
    assert line
    assert f"{other.decode_tok_s:.2f} tokens/s" in line


def test_a_hopeless_machine_is_told_how_much_is_missing():
    found = plan(K25, machine(ram=8 * GB))
    missing = float(re.search(r"([\d.]+) GB more of free RAM", found.advice[0])[1])
    assert "not enough" in found.advice[0]
    assert plan(K25, machine(ram=8 * GB + int((missing + 0.05) * GB))).fits
    assert not plan(K25, machine(ram=8 * GB + int((missing - 0.1) * GB))).fits
    assert found.bottleneck == f"RAM: {missing:.1f} GB short"


def test_a_card_that_is_too_small_is_left_alone_and_told_why():
    here = machine(vram=24 * GB)
    found = plan(K25, here)
    assert found.fits
    assert found.settings["device"] == "cpu"
    assert with_(found, "the GPU lacks 1.1 GB")
    assert not plan(K25, here, PlanOptions(device="cuda")).fits
    told = re.search(r"--context (\d+): ([\d.]+)", with_(found, "on the GPU with --context"))
    smaller = plan(K25, here, PlanOptions(context=int(told[1])))
    assert smaller.settings["device"] == "cuda"
    assert f"{smaller.decode_tok_s:.2f}" == told[2]
    assert with_(found, "on the GPU with --no-vision") is None  # 0.9 GB are not enough


def test_a_card_that_lacks_more_is_told_of_all_that_would_help():
    found = plan(K25, machine(vram=22_500_000_000))
    assert with_(found, "on the GPU with --context") is None
    assert with_(found, "on the GPU with --no-vision --context 4096")


def test_fewer_users_are_a_way_out():
    here = machine(ram=60 * GB)
    options = PlanOptions(context=131_072, users=8)
    found = plan(K25, here, options)
    each = int(re.search(r"--context (\d+):", with_(found, "--context"))[1])
    assert plan(K25, here, replace(options, context=each)).fits
    assert not plan(K25, here, replace(options, context=each + 1024)).fits
    assert with_(found, "--users 1:")
    assert plan(K25, here, replace(options, users=1)).fits


def test_a_model_without_experts_is_planned_too():
    text = replace(K25.text, first_k_dense_replace=K25.text.num_hidden_layers)
    dense = replace(K25, text=text, quantization=None)
    for here in (machine(), machine(ram=80 * GB), machine(ram=8 * GB), machine(vram=90 * GB)):
        found = plan(dense, here)
        assert set(found.expert_slots_per_layer.values()) == {0}
        assert "routed" not in found.bytes
        assert found.fits is (found.decode_tok_s > 0)


def test_auto_on_a_card_is_bf16():
    auto = PlanOptions(device="cuda", backbone_weights="auto")
    assert plan(K25, machine(vram=90 * GB), auto).settings["backbone_weights"] == "bf16"


def test_a_slow_card_is_left_alone():
    slow = replace(machine(), gpus=(Gpu(free_bytes=90 * GB, peak_gb_s=60),))
    found = plan(K25, slow)
    assert found.settings["device"] == "cpu"
    assert with_(found, "slower")


def test_what_is_read_from_the_disk_is_told_with_what_would_end_it():
    here = machine(ram=300 * GB, disk=Disk(free_bytes=100 * GB))
    found = plan(K25, here)
    line = with_(found, "read from the disk")
    assert float(line.split()[0]) == pytest.approx(found.bytes["routed"]["nvme"] / GB, abs=0.5)
    more = int(re.search(r"with (\d+) GB more", line)[1])
    assert plan(K25, machine(ram=(300 + more + 2) * GB)).bytes["routed"]["nvme"] == 0
    assert "571 GB of disk, and 100 GB are free" in with_(found, "prepare")
    assert with_(plan(K25, machine()), "read from the disk") is None


def test_int8_is_offered_with_its_speed():
    found = plan(K25, machine())
    told = with_(found, "--backbone-weights int8")
    other = plan(K25, machine(), PlanOptions(backbone_weights="int8"))
    assert told == f"--backbone-weights int8: {other.decode_tok_s:.2f} tokens/s"
    assert with_(other, "int8:") is None


def test_auto_takes_int8_only_where_bf16_does_not_fit():
    auto = PlanOptions(backbone_weights="auto")
    assert plan(K25, machine(), auto).settings["backbone_weights"] == "bf16"
    tight = plan(K25, machine(ram=20 * GB), auto)
    assert tight.fits
    assert tight.settings["backbone_weights"] == "int8"


def test_int8_goes_to_the_card():
    found = plan(K25, machine(vram=24 * GB), PlanOptions(backbone_weights="int8"))
    assert found.settings["device"] == "cuda"
    bf16 = plan(K25, machine(vram=90 * GB)).bytes["attention"]["vram"]
    assert found.bytes["attention"]["vram"] == pytest.approx(bf16 * 17 / 32, rel=1e-3)


def test_auto_is_int8_on_a_card_that_bf16_does_not_fit():
    auto = PlanOptions(backbone_weights="auto")
    found = plan(K25, machine(vram=24 * GB), auto)
    assert (found.settings["device"], found.settings["backbone_weights"]) == ("cuda", "int8")
    told = with_(plan(K25, machine(vram=24 * GB)), "on the GPU with --backbone-weights int8")
    assert f"{found.decode_tok_s:.2f} tokens/s" in told
    assert plan(K25, machine(vram=90 * GB), auto).settings["backbone_weights"] == "bf16"


def test_experts_on_several_cards():
    cards = (Gpu(free_bytes=40 * GB, peak_gb_s=1792), Gpu(free_bytes=90 * GB, peak_gb_s=1792))
    one = plan(K25, replace(machine(), gpus=cards[1:]))
    two = plan(K25, replace(machine(), gpus=cards))
    assert len(two.cards) == 2
    assert "attention" in two.cards[0]["bytes"]  # the one with most room has the backbone
    assert set(two.cards[1]["bytes"]) == {"routed", "working_slots"}
    assert sum(each["bytes"]["routed"] for each in two.cards) == two.bytes["routed"]["vram"]
    assert two.expert_slots_per_layer["vram"] > one.expert_slots_per_layer["vram"] + 15
    assert two.decode_tok_s > one.decode_tok_s
    assert two.prefill_tok_s["2048"] > 1.15 * one.prefill_tok_s["2048"]  # over two links
    assert two.settings.keys() == one.settings.keys()


def test_memory_of_cards_that_stays_empty_is_said():
    cards = (Gpu(free_bytes=90 * GB, peak_gb_s=1792), Gpu(free_bytes=GB))
    options = PlanOptions(users=3, vram_budget=600 * GB)
    found = plan(K25, replace(machine(), gpus=cards), options)
    assert with_(found, "1 of 2 GPUs have no room for experts")
    held = found.bytes["routed"]["vram"] / GB
    assert with_(found, f"--vram-budget finds room for {held:.1f} GB of experts only")
    assert with_(found, "one conversation at a time")
    assert found.settings["kv_tokens"] == 3 * 32768
    assert found.settings["vram_budget"] == 600 * GB
    plenty = plan(K25, machine(vram=90 * GB), PlanOptions(vram_budget=10 * GB))
    assert plenty.bytes["routed"]["vram"] <= 10 * GB
    assert with_(plenty, "vram-budget") is None
    assert with_(plan(K25, machine(vram=90 * GB)), "GPUs") is None


def test_the_bottleneck_has_its_number():
    ram = plan(K25, machine())
    assert ram.bottleneck.startswith("RAM: 11.9 GB of experts and 21.1 GB of backbone a token at ")
    disk = plan(K25, machine(ram=60 * GB, disk=Disk(peak_gb_s=1)))
    assert disk.bottleneck.startswith("disk: ")
    part = sum(disk.seconds.values())
    share = int(re.search(r"(\d+) % of a token", disk.bottleneck)[1])
    assert share == pytest.approx(100 * disk.seconds["experts_file"] / part, abs=0.6)
    card = plan(K25, machine(vram=90 * GB), PlanOptions(vram_budget=0))
    assert card.bottleneck.startswith("RAM: 11.9 GB of experts a token at ")
    some = plan(K25, machine(vram=40 * GB))
    left = 11.891 * (1 - some.hits.vram)
    assert some.bottleneck.startswith(f"RAM: {left:.1f} GB of experts a token at ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"context": 0}, "context is 0; give a whole number of at least 1"),
        ({"context": 262_145}, "context is 262145; this model allows at most 262144"),
        ({"context": True}, "context is True"),
        ({"users": 1.5}, "users is 1.5"),
        ({"ram_budget": -1}, "ram_budget is -1; give a whole number of at least 0"),
        ({"threads": 0}, "threads is 0"),
        ({"device": "tpu"}, "device is 'tpu'; choose auto, cpu, cuda"),
        ({"backbone_weights": "fp8"}, "backbone_weights is 'fp8'; choose bf16, int8, auto"),
    ],
)
def test_options_that_cannot_be(change, told):
    with pytest.raises(ConfigError, match="^" + re.escape(told)):
        plan(K25, machine(), PlanOptions(**change))
