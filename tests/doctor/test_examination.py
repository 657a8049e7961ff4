"""All checks together: names, order, what the speed of a machine adds."""

import pytest

import hybrid.calibration
from hybrid.doctor import examination, examine
from hybrid.errors import PlacementError
from hybrid.hardware import K25, ModelSizes, Rates
from hybrid.tiny import TinyShape, write_tiny

SHAPE = TinyShape(num_hidden_layers=2, n_routed_experts=4, num_experts_per_tok=2)
NAMES = [
    "Python", "packages", "CPU kernels", "kernel files", "cores", "NUMA", "huge pages", "swap",
    "GPU driver", "torch and CUDA", "PCIe link", "checkpoint", "memory", "prepared file",
    "direct reads", "memory bandwidth", "expert kernel", "disk speed",
]  # fmt: skip


@pytest.fixture
def model_dir(tmp_path):
    return write_tiny(tmp_path / "model", SHAPE, vision=False)


def by_name(checks):
    return {check.name: check for check in checks}


def test_names_and_keys():
    steps = []
    checks = examine(sink=steps.append)
    assert [check.name for check in checks] == NAMES
    assert steps == ["software", "model", "GPU"]
    for check in checks:
        assert list(check.to_json()) == ["name", "ok", "found", "fix"]
        assert bool(check.fix) is (check.ok is False)


def test_a_model(model_dir):
    found = by_name(examine(model_dir))
    assert found["checkpoint"].ok
    assert found["memory"].ok
    (model_dir / "config.json").write_text("")
    found = by_name(examine(model_dir))
    assert found["checkpoint"].ok is False
    assert found["memory"].ok is None


def test_deep_measures_with_the_sizes_of_the_model(model_dir, monkeypatch):
    asked = []

    def calibrate(sizes, **options):
        asked.append((sizes, options["model_dir"]))
        return Rates(ram_gb_s=10.0, experts_gb_s=5.0, measured=True)

    monkeypatch.setattr(hybrid.calibration, "calibrate", calibrate)
    found = by_name(examine(deep=True))
    assert found["expert kernel"].ok is False  # half of a plain read
    small = by_name(examine(model_dir, deep=True))
    assert small["expert kernel"].ok is None
    (first, _), (second, where) = asked
    assert first == K25
    assert (second.hidden_size, where) == (SHAPE.hidden_size, model_dir)
    assert isinstance(second, ModelSizes)


def test_too_little_memory_to_measure_is_a_failed_check(monkeypatch):
    def refuse(*_, **__):
        raise PlacementError("0.1 GB of RAM are free")

    monkeypatch.setattr(examination, "_measured", refuse)
    last = examine(deep=True)[-1]
    assert (last.name, last.ok, last.found) == ("speed", False, "0.1 GB of RAM are free")
