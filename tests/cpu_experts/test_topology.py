"""What made-up machines are taken for: nodes, cores, hardware threads, and views with holes."""

import os

import pytest

from hybrid.cpu_experts import topology
from hybrid.cpu_experts.topology import Topology, read_topology, siblings


class Machine:
    """A /sys of our own: `cores` maps a node to its cores, each a list of logical CPUs."""

    def __init__(self, root, monkeypatch):
        self.system, self.cgroup = root / "system", root / "cgroup"
        self.monkeypatch = monkeypatch
        (self.system / "cpu").mkdir(parents=True)
        self.cgroup.mkdir()

    def build(self, cores, allowed=None):
        for node, own in cores.items():
            self.write(f"node/node{node}/cpulist", ",".join(str(c) for core in own for c in core))
            for core in own:
                for cpu in core:
                    self.write(f"cpu/cpu{cpu}/topology/core_cpus_list", ",".join(map(str, core)))
        every = {cpu for own in cores.values() for core in own for cpu in core}
        self.allow(every if allowed is None else allowed)

    def allow(self, cpus):
        mask = set(cpus)
        self.monkeypatch.setattr(os, "sched_getaffinity", lambda _: mask, raising=False)

    def write(self, name, text):
        path = self.system / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def read(self):
        return read_topology(self.system, self.cgroup)


TWO_SOCKETS = {  # 4 cores each, 2 threads a core, numbered as Linux does: siblings far apart
    0: [[0, 8], [1, 9], [2, 10], [3, 11]],
    1: [[4, 12], [5, 13], [6, 14], [7, 15]],
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


def test_two_sockets(machine):
    machine.build(TWO_SOCKETS)
    assert machine.read() == Topology(((0, 1, 2, 3), (4, 5, 6, 7)), (0, 1))


def test_neighbouring_siblings(machine):
    machine.build({0: [[0, 1], [2, 3]], 1: [[4, 5], [6, 7]]})
    assert machine.read() == Topology(((0, 2), (4, 6)), (0, 1))


@pytest.mark.parametrize(
    ("allowed", "nodes", "ids"),
    [
        ({0, 8}, ((0,),), (0,)),  # one core, both its threads
        ({8, 9, 10}, ((8, 9, 10),), (0,)),  # second threads only
        ({0, 9, 13, 5}, ((0, 9), (5,)), (0, 1)),
        (range(4, 8), ((4, 5, 6, 7),), (1,)),  # a node with no allowed CPU is left out
    ],
)
def test_the_affinity_mask_is_respected(machine, allowed, nodes, ids):
    machine.build(TWO_SOCKETS, allowed)
    assert machine.read() == Topology(nodes, ids)


def test_nodes_are_numbered_with_gaps(machine):
    machine.build({0: [[0], [1]], 8: [[64], [65]], 252: [[128]]})
    assert machine.read() == Topology(((0, 1), (64, 65), (128,)), (0, 8, 252))


def test_a_node_of_memory_only_has_no_cores(machine):
    machine.build({0: [[0], [1]], 2: []})
    assert machine.read() == Topology(((0, 1),), (0,))


@pytest.mark.parametrize(
    ("distance", "ids", "nodes"),
    [
        ("21 10 11", (0, 4), ((0,), (1, 2))),  # node 1 has no memory and is next to node 4
        ("11 10 21", (0, 4), ((0, 1), (2,))),
        ("", (0, 4), ((0, 1), (2,))),  # unknown: the lowest
        ("11 10", (0, 4), ((0, 1), (2,))),  # one column too few
        ("a b c", (0, 4), ((0, 1), (2,))),
    ],
)
def test_cores_without_memory_go_to_the_nearest_that_has_it(machine, distance, ids, nodes):
    machine.build({0: [[0]], 1: [[1]], 4: [[2]]})
    machine.write("node/has_memory", "0,4")
    machine.write("node/node1/distance", distance)
    assert machine.read() == Topology(nodes, ids)


def test_cpus_that_are_offline_do_not_count(machine):
    machine.build(TWO_SOCKETS)
    machine.write("cpu/online", "0-2,4,8-10")
    assert machine.read() == Topology(((0, 1, 2), (4,)), (0, 1))


@pytest.mark.parametrize("online", ["", "a-b", "100-200"])
def test_a_mask_of_online_cpus_that_makes_no_sense_is_ignored(machine, online):
    machine.build({0: [[0], [1]]})
    machine.write("cpu/online", online)
    assert machine.read().cores == 2


def test_without_sys_every_cpu_is_a_core_of_one_node(machine):
    machine.allow({0, 1, 5})
    assert machine.read() == Topology(((0, 1, 5),), (0,))


def test_cpus_outside_every_node_join_the_first(machine):
    """A container that sees one of two nodes."""
    machine.build({3: [[6], [7]]}, allowed={0, 6, 7})
    assert machine.read() == Topology(((0, 6, 7),), (3,))


def test_the_older_name_of_the_siblings(machine):
    machine.write("cpu/cpu0/topology/thread_siblings_list", "0-1")
    machine.write("cpu/cpu1/topology/thread_siblings_list", "0-1")
    machine.allow({0, 1})
    assert machine.read().nodes == ((0,),)
    assert siblings(1, machine.system) == {0, 1}
    assert siblings(7, machine.system) == {7}


def test_a_system_without_affinity_masks_has_one_node(machine, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(topology.psutil, "cpu_count", lambda logical: None)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert machine.read() == Topology(((0, 1, 2),), (0,))


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "350000 100000"}, 3.5),
        ({"cpu.max": "x"}, None),
        ({"cpu.max": "100000 0"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "200000"}, None),
        ({}, None),
    ],
)
def test_a_container_quota_is_read(machine, files, quota):
    machine.build({0: [[0], [1]]})
    for name, text in files.items():
        path = machine.cgroup / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    assert machine.read().quota == quota


def test_a_sibling_counted_as_a_core_would_be_seen(machine, monkeypatch):
    """Planted fault: hardware threads are taken for cores."""
    monkeypatch.setattr(topology, "siblings", lambda cpu, _: frozenset({cpu}))
    machine.build(TWO_SOCKETS)
    assert machine.read().cores == 16


def test_this_machine_has_a_core():
    found = read_topology()
    assert found.cores >= 1
    assert len(found.nodes) == len(found.ids)
