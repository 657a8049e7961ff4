"""Thread counts on made-up machines; memory for the records."""

import os

import numpy as np
import pytest

from hybrid.cpu_experts import arena
from hybrid.cpu_experts.cores import available_cores
from hybrid.errors import PlacementError


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Four cores with two threads each: CPU n and n + 4 are siblings."""
    for index in range(8):
        folder = tmp_path / f"cpu/cpu{index}/topology"
        folder.mkdir(parents=True)
        (folder / "core_cpus_list").write_text(f"{index % 4},{index % 4 + 4}\n")
    (tmp_path / "cgroup").mkdir()

    def count(allowed=range(8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed), raising=False)
        return available_cores(tmp_path / "cpu", tmp_path / "cgroup")

    count.cgroup = tmp_path / "cgroup"
    return count


def test_siblings_count_once(machine):
    assert machine() == 4
    assert machine({0, 4}) == 1
    assert machine({0, 1, 5}) == 2


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 4), ("200000 100000", 2), ("350000 100000", 3), ("50000 100000", 1), ("x", 4)],
)
def test_a_container_quota_is_respected(machine, quota, cores):
    (machine.cgroup / "cpu.max").write_text(quota + "\n")
    assert machine() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 4), ("200000", 2)])
def test_an_old_container_quota_is_respected(machine, quota, cores):
    (machine.cgroup / "cpu").mkdir()
    (machine.cgroup / "cpu/cpu.cfs_quota_us").write_text(quota)
    (machine.cgroup / "cpu/cpu.cfs_period_us").write_text("100000")
    assert machine() == cores


def test_unknown_topology_counts_every_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert available_cores(tmp_path, tmp_path) == 3


def test_the_arena_owns_zeroed_pages():
    memory = arena.allocate(3 << 20)
    assert memory.ctypes.data % 4096 == 0
    assert not memory.any()
    memory[-1] = 7
    view = memory[-10:]
    del memory
    assert view.tolist() == [0] * 9 + [7]


def test_more_than_the_address_space_is_refused_in_one_line():
    for nbytes in (1 << 60, 1 << 70):
        with pytest.raises(PlacementError, match=r"^cannot reserve .* GiB for expert records"):
            arena.allocate(nbytes)
    assert isinstance(arena.allocate(1), np.ndarray)
