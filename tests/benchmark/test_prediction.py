"""The plan is asked with what was loaded, about what is timed."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from hybrid.benchmark.cases import Case
from hybrid.benchmark.prediction import predicted, predictor
from hybrid.benchmark.sample import Asked
from hybrid.config import ModelConfig
from hybrid.hardware import Cpu, Hardware, Ram, Rates
from hybrid.load_options import LoadOptions
from hybrid.placement import PlanOptions, plan

RATES = Rates(
    ram_gb_s=30, experts_gb_s=25, experts_gflop_s=300, backbone_gb_s=25, backbone_gflop_s=100,
    disk_gb_s=2, disk_record_s=1e-3, step_s=1e-4, measured=True,
)  # fmt: skip
MACHINE = Hardware(cpu=Cpu(isa="avx2", cores=2), ram=Ram(free_bytes=8 << 30), rates=RATES)


@pytest.fixture
def engine(tiny_dir):
    return SimpleNamespace(
        config=ModelConfig.from_dir(tiny_dir),
        kv_tokens=4096,
        options=LoadOptions(device="cpu", threads=2, activation="int8", isa="avx2", vision=False),
    )


@pytest.fixture
def planned(engine):
    options = PlanOptions(context=4096, vision=False, device="cpu", threads=2, routing="uniform")
    return plan(engine.config, MACHINE, options)


def test_a_token_in_the_middle(engine, planned):
    found = predictor(MACHINE, Asked())(engine, Case(generated=100, depth=1000), {})
    assert found.seconds == planned.decode_parts(1050)
    assert found.tokens_per_s == pytest.approx(1 / sum(found.seconds.values()))
    shallow = predictor(MACHINE, Asked())(engine, Case(generated=100), {})
    assert shallow.tokens_per_s > found.tokens_per_s


def test_a_prompt_and_one_behind_others(engine, planned):
    predict = predictor(MACHINE, Asked())
    fresh = predict(engine, Case(prompt=512), {})
    assert fresh.tokens_per_s == pytest.approx(512 / planned.prefill_seconds(512))
    deep = predict(engine, Case(prompt=512, depth=2048), {})
    whole, before = planned.prefill_seconds(2560), planned.prefill_seconds(2048)
    assert 512 / (whole - before) > deep.tokens_per_s > 512 / whole
    assert deep.tokens_per_s < fresh.tokens_per_s


def test_a_machine_that_was_not_measured_is_not_predicted(engine):
    machine = replace(MACHINE, rates=replace(RATES, measured=False))
    assert predictor(machine, Asked())(engine, Case(prompt=512), {}) is None


@pytest.mark.parametrize(("feed", "routing"), [("random", "uniform"), ("greedy", "local")])
def test_tokens_at_random_choose_at_random(engine, feed, routing):
    engine.options = replace(engine.options, ram_budget=100_000)
    found = predictor(MACHINE, Asked(feed=feed))(engine, Case(generated=4), {})
    options = PlanOptions(
        context=4096, vision=False, device="cpu", threads=2, ram_budget=100_000, routing=routing
    )
    assert found == predicted(plan(engine.config, MACHINE, options), Case(generated=4), {})


def test_less_ram_is_slower(engine):
    """The budget that was loaded with reaches the plan."""
    all_in_ram = predictor(MACHINE, Asked())(engine, Case(generated=4), {})
    engine.options = replace(engine.options, ram_budget=0)
    assert predictor(MACHINE, Asked())(engine, Case(generated=4), {}).tokens_per_s < (
        all_in_ram.tokens_per_s
    )


def test_measured_hits_tell_the_two_guesses_apart(engine):
    engine.options = replace(engine.options, ram_budget=0)
    case, predict = Case(generated=4), predictor(MACHINE, Asked())
    blind = predict(engine, case, {})
    assert blind.at_hits == blind.tokens_per_s
    lucky = predict(engine, case, {"vram": 0.0, "ram": 1.0, "nvme": 0.0})
    assert lucky.tokens_per_s == blind.tokens_per_s
    assert lucky.at_hits > blind.at_hits
    assert predict(engine, Case(prompt=4), {}).at_hits is None


def test_hits_that_are_known_better_take_the_place_of_the_plans(engine):
    engine.options = replace(engine.options, ram_budget=0)
    known = {"vram": 0.0, "ram": 0.75, "nvme": 0.25}
    told = predictor(MACHINE, Asked(), known)(engine, Case(generated=4), {})
    seen = predictor(MACHINE, Asked())(engine, Case(generated=4), known)
    assert told.tokens_per_s == seen.at_hits > seen.tokens_per_s
    assert sum(told.seconds.values()) == pytest.approx(1 / told.tokens_per_s)
