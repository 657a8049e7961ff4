"""Phases over several nodes, on a made-up machine: own units first, then the others', each once."""

import time

import numpy as np
import pytest

from hybrid.cpu_experts import pool as pool_module
from hybrid.cpu_experts.phase import NODE
from hybrid.cpu_experts.pool import Pool
from hybrid.cpu_experts.topology import Topology
from tests.cpu_experts.pool_kernels import run

MACHINES = {
    1: Topology(((0, 1, 2, 3),), (0,)),
    2: Topology(((0, 1, 2), (3, 4)), (0, 1)),
    3: Topology(((0,), (1, 2), (3,)), (0, 4, 6)),
}


@pytest.fixture(autouse=True)
def pins(monkeypatch):
    """Where threads would be pinned: this machine need not have those cores."""
    found = []
    monkeypatch.setattr(pool_module, "pin", found.append)
    return found


@pytest.fixture(params=MACHINES)
def pool(request):
    machine = MACHINES[request.param]
    pool = Pool(machine.cores, topology=machine)
    assert pool.nodes == request.param
    yield pool
    pool.close()


def in_order(pool, rows, bounds):
    """Whether every thread went through the nodes one after another, its own first."""
    node_of_unit = np.searchsorted(np.array(bounds[1:]), np.arange(len(rows)), side="right")
    for worker in range(pool.threads):
        own = pool._crew.seats[worker].node
        mine = np.flatnonzero(rows[:, 0] == worker + 1)
        mine = mine[np.argsort(rows[mine, 2])]
        steps = (node_of_unit[mine] - own) % pool.nodes
        if np.any(np.diff(steps) < 0) or np.any(np.diff(mine)[np.diff(steps) == 0] < 0):
            return False
    return True


def until_all_took_part(pool, *work):
    """Phases until every thread has done a unit, however busy the machine is; the last's rows."""
    workers, deadline = set(), time.perf_counter() + 30
    while len(workers) < pool.threads:
        assert time.perf_counter() < deadline, workers
        rows = run(pool, *work)
        assert (rows[:, 1] == 1).all()
        workers |= set(rows[:, 0])
    return rows


def split(units, nodes):
    """Bounds of about equal parts."""
    return [units * node // nodes for node in range(nodes + 1)]


@pytest.mark.parametrize("units", [0, 1, 2, 3, 7, 100])
def test_every_unit_is_done_once(pool, units):
    assert (run(pool, units)[:, 1] == 1).all()
    assert (run(pool, units, split(units, pool.nodes))[:, 1] == 1).all()


def test_threads_begin_at_home_and_help_in_order(pool):
    bounds = split(120, pool.nodes)
    for _ in range(5):
        assert in_order(pool, until_all_took_part(pool, 120, bounds), bounds)


@pytest.mark.parametrize("machine", [2, 3])
def test_a_wrong_home_would_be_seen(machine):
    """Planted fault: the state says that every thread lives one node further."""
    pool = Pool(MACHINES[machine].cores, topology=MACHINES[machine])
    bounds = split(120, pool.nodes)
    run(pool, 120, bounds)
    for worker in range(pool.threads):
        pool._crew.line(worker)[NODE] = (pool._crew.line(worker)[NODE] + 1) % pool.nodes
    assert not all(in_order(pool, run(pool, 120, bounds), bounds) for _ in range(5))
    pool.close()


@pytest.mark.parametrize("full", [0, 1, 2])
def test_all_work_on_one_node_is_shared(full):
    """The others have nothing of their own, and help."""
    pool = Pool(4, topology=MACHINES[3])
    until_all_took_part(pool, 60, [0] * (full + 1) + [60] * (3 - full))
    pool.close()


def test_bounds_need_not_begin_at_0():
    pool = Pool(4, topology=MACHINES[3])
    rows = run(pool, 40, [10, 20, 20, 30])
    assert rows[:, 1].tolist() == [0] * 10 + [1] * 20 + [0] * 10
    assert run(pool, 40, [10, 10, 11, 11])[:, 1].tolist() == [0] * 10 + [1] + [0] * 29
    pool.close()


def test_without_workers_the_caller_does_it_all():
    pool = Pool(1, topology=MACHINES[3])
    rows = run(pool, 20, [0, 20])
    assert (rows[:, :2] == 1).all()
    assert (rows[:, 2] == np.arange(20)).all()


def test_one_counter_serves_the_threads_of_all_nodes():
    pool = Pool(4, topology=MACHINES[3])
    until_all_took_part(pool, 60)
    pool.close()


def test_workers_are_pinned_and_the_caller_is_not(pins, monkeypatch):
    monkeypatch.setattr(pool_module, "current_core", lambda: frozenset({3, 7}))
    pool = Pool(5, topology=MACHINES[2])
    assert [(share.memory_node, share.cores) for share in pool.shares] == [
        (0, (0, 1, 2)),
        (1, (3, 4)),
    ]
    run(pool, 60)
    pool.close()
    assert sorted(pins) == [0, 1, 2, 4]
    assert pool._crew.seats == []  # new threads will ask anew


def test_more_threads_than_cores_are_not_pinned(pins):
    pool = Pool(6, topology=MACHINES[2])
    assert pool.nodes == 1
    run(pool, 60)
    pool.close()
    assert pins == [None] * 5
