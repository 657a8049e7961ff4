"""Settings of the operating system, on machines that are not here; each fault has its command."""

import pytest

from hybrid.cpu_experts.topology import Topology, read_topology
from hybrid.doctor import system
from hybrid.hardware import describe
from tests.hardware import machines
from tests.hardware.machines import Machine

TWO_NODES = Topology(((0, 1), (2, 3)), (0, 1))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path / "machine", monkeypatch)


def topology(machine):
    system_folder = machine.roots.system
    return read_topology(system_folder / "devices/system", system_folder / "fs/cgroup")


@pytest.mark.parametrize(
    ("setting", "ok"), [("always", True), ("madvise", True), ("never", False), (None, None)]
)
def test_huge_pages(setting, ok):
    check = system.huge_pages(setting)
    assert check.ok is ok
    assert ("tee /sys/kernel/mm/transparent_hugepage/enabled" in check.fix) is (ok is False)


def test_cores(machine):
    machines.two_epycs(machine)
    check = system.cores(topology(machine), 2)
    assert check.ok
    assert check.found == "16 cores of 2 hardware threads; one of each is used"
    assert system.cores(Topology(((0,),), (0,)), 1).found == "1 core"


def test_a_quota_shares_cores(machine):
    machines.xeon_container(machine)
    check = system.cores(topology(machine), 1)
    assert check.ok is False
    assert check.found.startswith("16 cores, but a quota of 4: threads are not pinned")
    assert "--cpuset-cpus=0-15" in check.fix


def test_numa(machine):
    machines.two_epycs(machine)
    check = system.numa(topology(machine), machine.roots)
    assert check.ok is False
    assert check.fix == "echo 0 | sudo tee /proc/sys/kernel/numa_balancing"
    machine.proc("sys/kernel/numa_balancing", 0)
    assert system.numa(TWO_NODES, machine.roots).ok
    assert system.numa(Topology(((0, 1),), (0,)), machine.roots).ok is None


def test_swap(machine):
    machines.laptop(machine)
    total = 32_000_000 * 1024
    check = system.swap(machine.roots, total * 8 // 10, total)
    assert (check.ok, check.fix) == (False, "sudo sysctl vm.swappiness=1")
    assert "8.2 GB, swappiness 60" in check.found
    assert system.swap(machine.roots, total // 2, total).ok is None
    assert system.swap(machine.roots, None, total).ok is None
    machine.proc("sys/vm/swappiness", 1)
    assert system.swap(machine.roots, total, total).ok
    machine.memory(1, 1, swap_kib=0)
    assert system.swap(machine.roots, total, total).ok


def test_a_machine_that_says_nothing(machine):
    machines.nothing(machine)
    found = describe(roots=machine.roots)
    assert system.swap(machine.roots, 1, found.ram.total_bytes).ok is None
    assert system.huge_pages(found.ram.huge_pages).ok is None
    assert system.cores(topology(machine), found.cpu.threads_per_core).ok
    assert system.numa(topology(machine), machine.roots).ok is None
