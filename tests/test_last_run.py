"""Both sides of a run: measured from what was spent, planned from a plan."""

from dataclasses import asdict

import pytest

from hybrid.doctor import explain
from hybrid.hardware import Cpu, Hardware, Ram
from hybrid.last_run import VERSION, Moment, Run, Side, measured, planned
from hybrid.placement import PlanOptions, builtin_config, plan

START = Moment({"attention_s": 1.0, "experts_s": 2.0, "calls": 7}, 10.0)
BETWEEN = Moment({"attention_s": 1.5, "experts_s": 3.0, "calls": 9}, 12.0)
END = Moment({"attention_s": 1.6, "experts_s": 3.3, "calls": 9}, 12.5)
USES = {"vram": 0, "ram": 30, "nvme": 10}


def test_what_was_measured():
    found = measured((START, BETWEEN, END), (20, 5), USES, {"disk_gb_s": 2.0})
    assert found.prefill_tok_s == pytest.approx(10.0)
    assert found.prefill_s == pytest.approx(
        {"attention": 0.5 / 20, "experts": 1 / 20, "hand-offs": 0.5 / 20}
    )
    assert found.decode_tok_s == pytest.approx(10.0)
    assert found.decode_s == pytest.approx({"attention": 0.02, "experts": 0.06, "hand-offs": 0.02})
    assert found.hits == {"vram": 0.0, "ram": 0.75, "nvme": 0.25}
    for speed, parts in ((found.decode_tok_s, found.decode_s),):
        assert sum(parts.values()) == pytest.approx(1 / speed)


def test_nothing_measured():
    found = measured((START, START, START), (0, 0), {"ram": 0}, {})
    assert found == Side()


@pytest.fixture
def k25():
    ram = Ram(total_bytes=10**12, free_bytes=3 * 10**11)
    return plan(builtin_config(), Hardware(cpu=Cpu(cores=32), ram=ram), PlanOptions())


def test_what_was_planned(k25):
    side = planned(k25, 512, 1000)
    assert side.decode_tok_s == pytest.approx(1 / sum(k25.decode_parts(1000).values()))
    assert side.prefill_tok_s == pytest.approx(512 / k25.prefill_seconds(512))
    assert sum(side.prefill_s.values()) == pytest.approx(1 / side.prefill_tok_s)
    assert sum(side.hits.values()) == pytest.approx(1.0)
    assert planned(k25, 0, 0).prefill_tok_s is None


def test_a_plan_that_comes_true_has_no_gap(k25):
    side = planned(k25, 512, 0)
    run = Run(model="m", prompt_tokens=512, decode_steps=50, measured=side, predicted=side)
    lines = explain({"version": VERSION, "runs": [asdict(run)]})
    assert all("within 25%" in line for line in lines[1:])
