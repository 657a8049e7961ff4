"""Thread counts, and who sits where, on made-up machines."""

import errno
import logging
import os
import threading

import pytest

from hybrid.cpu_experts import cores
from hybrid.cpu_experts.cores import Seat, Share, available_cores, seats, shares
from hybrid.cpu_experts.topology import Topology

TWO = Topology(((0, 1, 2, 3), (4, 5, 6, 7)), (0, 8))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Four cores with two threads each: CPU n and n + 4 are siblings."""
    for index in range(8):
        folder = tmp_path / f"system/cpu/cpu{index}/topology"
        folder.mkdir(parents=True)
        (folder / "core_cpus_list").write_text(f"{index % 4},{index % 4 + 4}\n")
    (tmp_path / "cgroup").mkdir()

    def count(allowed=range(8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed), raising=False)
        return available_cores(tmp_path / "system", tmp_path / "cgroup")

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


@pytest.mark.parametrize(
    ("threads", "spread"),
    [
        (8, (Share(0, (0, 1, 2, 3)), Share(8, (4, 5, 6, 7)))),
        (4, (Share(0, (0, 2)), Share(8, (4, 6)))),  # evenly apart
        (5, (Share(0, (0, 1, 2)), Share(8, (4, 6)))),
        (2, (Share(0, (0,)), Share(8, (4,)))),
        (1, (Share(None, (0,)),)),  # one node: its memory is as good as any
    ],
)
def test_threads_are_dealt_to_nodes(threads, spread):
    assert shares(TWO, threads) == spread


def test_a_small_node_gives_what_it_has():
    uneven = Topology(((0, 1, 2, 3, 4), (8,), (9, 10)), (0, 1, 2))
    assert shares(uneven, 6) == (Share(0, (0, 1, 3)), Share(1, (8,)), Share(2, (9, 10)))
    assert [len(share.cores) for share in shares(uneven, 8)] == [5, 1, 2]


@pytest.mark.parametrize("threads", range(1, 9))
def test_nobody_sits_on_anothers_core(threads):
    taken = [core for share in shares(TWO, threads) for core in share.cores]
    assert len(taken) == len(set(taken)) == threads


@pytest.mark.parametrize(
    ("topology", "threads", "words"),
    [
        (TWO, 9, "9 threads on 8 cores: they are not pinned"),
        (
            Topology(TWO.nodes, TWO.ids, 3.5),
            3,
            "3 threads on 8 cores with a quota of 3.5: they are not pinned",
        ),
    ],
)
def test_shared_cores_are_nobodys_and_the_log_says_so_once(topology, threads, words, caplog):
    cores._say_once.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert shares(topology, threads) == (Share(None, (None,) * threads),)
    assert caplog.messages == [words]


def test_a_quota_of_all_cores_is_no_limit():
    assert len(shares(Topology(TWO.nodes, TWO.ids, 8.0), 8)) == 2


@pytest.mark.parametrize(
    ("threads", "here", "caller"),
    [
        (8, {5, 13}, Seat(1, 5)),  # its own core stays free
        (8, {13, 5}, Seat(1, 5)),
        (4, {6}, Seat(1, 6)),
        (4, {7}, Seat(1, 4)),  # nobody was to sit there: another seat of its node
        (4, {99}, Seat(0, 0)),  # outside the mask it started with
        (4, set(), Seat(0, 0)),
        (9, {5}, Seat(0, None)),
        (1, {5}, Seat(0, 0)),
    ],
)
def test_the_caller_keeps_its_place(threads, here, caller):
    spread = shares(TWO, threads)
    found = seats(spread, TWO, frozenset(here))
    assert found[0] == caller
    everyone = [Seat(node, core) for node, share in enumerate(spread) for core in share.cores]
    assert sorted(found, key=repr) == sorted(everyone, key=repr)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pins on Linux only")
def test_a_thread_pins_itself_and_nobody_else():
    before, found = os.sched_getaffinity(0), []
    core = max(before)

    def work():
        cores.pin(core)
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [{core}]
    assert os.sched_getaffinity(0) == before


def test_a_refused_pin_is_a_debug_line(monkeypatch, caplog):
    def refuse(thread, cpus):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    with caplog.at_level(logging.DEBUG):
        cores.pin(7)
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("DEBUG", "cannot pin a thread to CPU 7 ([Errno 22] Invalid argument)")
    ]


def test_where_nothing_can_be_pinned_nothing_is(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    cores.pin(0)
    cores.pin(None)


def test_the_current_core_is_one_of_ours(monkeypatch):
    if hasattr(os, "sched_getaffinity"):
        assert cores.current_core() & os.sched_getaffinity(0)
    monkeypatch.setattr(cores.ctypes, "CDLL", lambda _: object())
    assert cores.current_core() == frozenset()
