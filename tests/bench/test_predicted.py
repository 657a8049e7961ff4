"""bench/predicted.py: models that leave the caches and fit a small disk; one run of a tiny one."""

import json
import sys

import predicted
import pytest

from hybrid.cache.capacity import capacity
from hybrid.cache.source import slot_bytes
from hybrid.cpu_experts.record import RecordShape
from hybrid.hardware import Hardware, Rates

RATES = Rates(ram_gb_s=10, experts_gb_s=9, backbone_gb_s=9, disk_gb_s=1, measured=True)
TINY = {"layers": 2, "experts": 16, "hidden": 64, "intermediate": 32}


def experts_bytes(model):
    return model.layers * model.experts * RecordShape(model.hidden, model.intermediate).nbytes


def test_there_are_enough_and_each_differs():
    assert len({model.name for model in predicted.MODELS}) == len(predicted.MODELS) >= 6
    for what in ("layers", "experts", "hidden", "ram_share"):
        assert len({getattr(model, what) for model in predicted.MODELS}) > 1


@pytest.mark.parametrize("model", predicted.MODELS, ids=lambda model: model.name)
def test_weights_leave_the_caches_and_fit_the_disk(model):
    share = 8 / model.experts
    assert share * experts_bytes(model) > 50e6  # of one token: more than any cache keeps
    assert 2 * experts_bytes(model) < 4e9  # shards, and the prepared file


@pytest.mark.parametrize("model", predicted.MODELS, ids=lambda model: model.name)
def test_the_budget_is_the_share(model):
    if model.ram_budget is None:
        assert model.ram_share == 1
        return
    record = slot_bytes(RecordShape(model.hidden, model.intermediate).nbytes)
    slots = capacity(model.layers * model.experts, record, 0, model.ram_budget)
    assert slots.from_file
    assert slots.ram == int(model.ram_share * slots.records)


def test_a_run_ends_with_its_report_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    models = (
        predicted.Synthetic("all", **TINY),
        predicted.Synthetic("half", **TINY, ram_share=0.5),
    )
    monkeypatch.setattr(predicted, "MODELS", models)
    monkeypatch.setattr(predicted, "TRACED", 16)
    monkeypatch.setattr(predicted, "calibrate", lambda *_, **__: RATES)
    monkeypatch.setattr(predicted, "probe", lambda *_, **__: Hardware(rates=RATES))
    arguments = ["--generated", "3", "--prompt", "4", "--repetitions", "2", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["predicted.py", str(tmp_path), *arguments])
    predicted.main()
    *table, last = capsys.readouterr().out.splitlines()
    report = json.loads(last)
    assert len(table) == 1 + report["of"] == 5
    assert [row["model"] for row in report["rows"]] == ["all", "all", "half", "half"]
    assert report["rows"][0]["tiers"]["nvme"]["share"] == 0
    assert report["rows"][2]["tiers"]["nvme"]["share"] > 0
    assert report["met"] == sum(abs(row["error"]) <= predicted.TARGET for row in report["rows"])
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_there_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["predicted.py", "x", "--only", "first,last"])
    with pytest.raises(SystemExit):
        predicted.main()
    assert "'last'" in capsys.readouterr().err
