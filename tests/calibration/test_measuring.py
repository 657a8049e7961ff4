"""The whole calibration on a small model's sizes: every rate that this machine can have."""

from dataclasses import fields

import numpy as np
import pytest

from hybrid.calibration import backbone_rates as backbone_module
from hybrid.calibration import calibrate, expert_rates, measuring, step_rate
from hybrid.calibration.disk_rates import FEWEST_SPANS
from hybrid.calibration.measuring import interleaved
from hybrid.calibration.plain_read import UNIT
from hybrid.cpu_experts import kernel_files
from hybrid.cpu_experts.cores import Seat
from hybrid.errors import CheckpointError
from hybrid.hardware import Rates, probe
from hybrid.hardware.devices import has_driver
from hybrid.hardware.model_sizes import ModelSizes
from hybrid.tiny import TinyShape

SIZES = ModelSizes(64, 32, 4, ((48, 64), (32, 96)))
DEVICE = ("link_gb_s", "device_gb_s", "device_gflop_s", "sync_s")
RECORD = 7 << 10  # more than a record of these sizes, in whole pages


@pytest.fixture
def kept(monkeypatch):
    """Rates are kept here; compiled kernels where they always are."""
    files, read, write = {}, kernel_files.read, kernel_files.write

    def is_rate(name):
        return name.startswith(("rates", "disk-rates"))

    monkeypatch.setattr(
        kernel_files, "read",
        lambda name, key: files.get((name, repr(key))) if is_rate(name) else read(name, key),
    )  # fmt: skip
    monkeypatch.setattr(
        kernel_files, "write",
        lambda name, key, content: files.update({(name, repr(key)): content})
        if is_rate(name) else write(name, key, content),
    )  # fmt: skip
    return files


@pytest.fixture
def quick(monkeypatch):
    """Little memory and few rounds: what is tested is not how fast this machine is."""
    monkeypatch.setattr(expert_rates, "LEAST_BYTES", 1 << 20)
    monkeypatch.setattr(expert_rates, "CACHES", 0)
    monkeypatch.setattr(backbone_module, "LEAST_BYTES", 1 << 20)
    monkeypatch.setattr(backbone_module, "CACHES", 0)
    monkeypatch.setattr(step_rate, "SHAPE", TinyShape(num_hidden_layers=2, n_routed_experts=8))
    monkeypatch.setattr(step_rate, "TOKENS", 3)
    monkeypatch.setattr(step_rate, "WARM_UP", 1)
    monkeypatch.setattr(measuring, "ROUNDS", 2)
    monkeypatch.setattr(measuring, "LONGEST_S", 0.02)


@pytest.fixture
def model_dir(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x" * (FEWEST_SPANS * RECORD * 2))
    return tmp_path


def test_everything_is_measured_and_kept(quick, kept, model_dir):
    steps = []
    found = calibrate(SIZES, threads=1, activation="int8", model_dir=model_dir, sink=steps.append)
    unknown = {each.name for each in fields(Rates) if getattr(found, each.name) is None}
    assert unknown == (set() if has_driver() else set(DEVICE))
    assert found.measured
    assert found.node_ram_gb_s == found.ram_gb_s  # one node
    assert steps[:5] == ["kernels", "memory", "one token", "a prompt", "disk"]
    known = probe(model_dir, threads=1, activation="int8", sizes=SIZES).rates
    assert known == found
    assert not probe(threads=1, activation="int8").rates.measured  # K2.5's were not


def test_without_files_the_disk_is_unknown(quick, kept, tmp_path):
    found = calibrate(SIZES, threads=1, activation="int8", model_dir=tmp_path)
    assert found.disk_gb_s is None
    assert found.experts_gb_s is not None


def test_without_a_temporary_directory_hand_offs_are_unknown(quick, kept, monkeypatch):
    def refuse(_):
        raise PermissionError("no directory")

    monkeypatch.setattr(measuring, "step_s", refuse)
    found = calibrate(SIZES, threads=1, activation="int8")
    assert found.step_s is None
    assert found.ram_gb_s is not None


def test_a_disk_that_fails_has_no_rate(model_dir, monkeypatch):
    def fail(_):
        raise CheckpointError("no")

    monkeypatch.setattr(measuring.DiskRates, "alone", fail)
    experts = type("Experts", (), {"layer": type("Layer", (), {"record_bytes": RECORD})})
    assert measuring._disk(experts, model_dir) == {}


def test_rounds_take_turns_and_the_first_does_not_count():
    calls = []

    def measure(name):
        calls.append(name)
        return len(calls), 1.0

    samples = interleaved({name: lambda name=name: measure(name) for name in "ab"}, 2)
    assert calls == list("ababab")
    assert samples == {"a": [(3, 1.0), (5, 1.0)], "b": [(4, 1.0), (6, 1.0)]}


def test_the_median_ignores_one_bad_round():
    assert measuring._rate([(10**9, 1.0), (10**9, 50.0), (10**9, 1.0)]) == 1.0


def test_seats_are_those_of_the_pool(monkeypatch):
    from hybrid.cpu_experts.topology import Topology

    monkeypatch.setattr(measuring, "read_topology", lambda: Topology(((0, 1), (2, 3)), (0, 1)))
    assert measuring.all_seats(4) == [Seat(0, 0), Seat(0, 1), Seat(1, 2), Seat(1, 3)]


def test_a_node_is_read_by_its_own_threads(monkeypatch):
    """The second node has one thread: it alone reads, and only that node's memory."""
    memory, teams, real = np.ones(4 * UNIT, np.uint8), [], measuring.Team

    def team(seats):
        teams.append(seats)
        return real(seats)

    monkeypatch.setattr(measuring, "Team", team)
    rate = measuring.node_gb_s(memory, 1, [Seat(0, None), Seat(1, None), Seat(0, None)])
    assert rate > 0
    assert teams == [[Seat(0, None)]]


@pytest.mark.gpu
@pytest.mark.skipif(not has_driver(), reason="no CUDA device")
def test_a_device_has_rates():
    from hybrid.calibration.device_rates import device_rates

    found = device_rates()
    assert all(value > 0 for value in found.values())
    assert found["link_gb_s"] < found["device_gb_s"]
