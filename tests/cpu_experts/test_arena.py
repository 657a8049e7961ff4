"""Weight memory: private, zeroed, on huge pages, refused in one line."""

import errno
import logging
import mmap
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from hybrid.cpu_experts import ExpertLayer, arena
from hybrid.errors import PlacementError

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
HUGE = arena.HUGE_PAGE
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")


def mapping_of(array):
    """Flags ("rw-p") and counters in kB of the mapping that the array's first byte lies in."""
    flags, fields, inside = "", {}, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if head := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ", line):
            inside = int(head[1], 16) <= array.ctypes.data < int(head[2], 16)
            flags = head[3] if inside else flags
        elif inside and (field := re.match(r"(\w+):\s+(\d+)", line)):
            fields[field[1]] = int(field[2])
    return flags, fields


def require_huge_pages():
    if not THP.exists() or "[never]" in THP.read_text():
        pytest.skip("this kernel gives no transparent huge pages")


@linux_only
def test_the_memory_is_private():
    assert mapping_of(arena.allocate(3 * HUGE))[0] == "rw-p"


@linux_only
def test_a_shared_mapping_would_be_seen():
    """What the arena must not be: the default of mmap.mmap."""
    flags, fields = mapping_of(np.frombuffer(mmap.mmap(-1, 3 * HUGE), np.uint8))
    assert flags == "rw-s"
    assert fields["AnonHugePages"] == 0


@linux_only
@pytest.mark.parametrize("nbytes", [HUGE, 3 * HUGE + 5])
def test_whole_huge_pages_are_eligible(nbytes):
    require_huge_pages()
    memory = arena.allocate(nbytes)
    memory[:] = 1
    fields = mapping_of(memory)[1]
    assert fields["THPeligible"] == 1
    assert fields["Size"] * 1024 == nbytes // HUGE * HUGE  # a rest must not cost a huge page


@linux_only
def test_records_and_weights_lie_there():
    require_huge_pages()
    layer = ExpertLayer(40, 256, 256, threads=1)
    assert layer.records.nbytes > HUGE
    assert mapping_of(layer.records)[1]["THPeligible"] == 1


@pytest.mark.parametrize("nbytes", [1, 4096, HUGE - 1, HUGE, 2 * HUGE + 1])
def test_zeroed_aligned_and_as_long_as_asked(nbytes):
    memory = arena.allocate(nbytes)
    assert memory.shape == (nbytes,)
    assert memory.flags.writeable
    assert memory.ctypes.data % HUGE == 0
    assert not memory.any()
    memory[:] = 7
    assert memory.min() == 7


def test_nothing_is_an_empty_array():
    assert arena.allocate(0).shape == (0,)


def test_memory_outlives_its_neighbours():
    first, second = arena.allocate(HUGE), arena.allocate(HUGE)
    second[:] = 2
    first[:] = 1
    del first
    assert second.min() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_cannot_change_the_parents_records():
    layer = ExpertLayer(2, 64, 32, threads=1)
    child = os.fork()
    if child == 0:
        layer.records[:] = 255
        os._exit(int(layer.records.min() != 255))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not layer.records.any()


@pytest.mark.parametrize("nbytes", [1 << 62, 1 << 80])
def test_what_no_machine_holds_is_refused(nbytes):
    with pytest.raises(PlacementError, match=r"cannot reserve .* GiB for a cat \(.*\); feed it"):
        arena.allocate(nbytes, "a cat", "feed it")
    with pytest.raises(PlacementError, match=r"GiB for expert records \(.*\); use a machine"):
        arena.allocate(nbytes)


# ---- memory of one node


@pytest.fixture
def mbind(monkeypatch):
    """The calls that would have been made; `answer` is their errno."""

    class Calls(list):
        answer = 0

    calls = Calls()

    def record(start, nbytes, mode, mask):
        calls.append((start, nbytes, mode, [int(word) for word in mask]))
        return calls.answer

    monkeypatch.setattr(arena, "_mbind", record)
    return calls


@pytest.mark.parametrize(
    ("node", "mask"), [(0, [1]), (5, [32]), (63, [1 << 63]), (64, [0, 1]), (130, [0, 0, 4])]
)
def test_all_of_the_memory_is_asked_of_the_node(mbind, node, mask):
    memory = arena.allocate(3 * HUGE + 5, node=node)
    ((start, nbytes, mode, seen),) = mbind
    assert start % mmap.PAGESIZE == 0
    assert start <= memory.ctypes.data
    assert memory.ctypes.data + memory.nbytes <= start + nbytes
    assert (mode, seen) == (1, mask)  # MPOL_PREFERRED


def test_without_a_node_nothing_is_asked(mbind):
    arena.allocate(HUGE)
    arena.allocate(0, node=1)
    assert not mbind


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.ENOSYS, errno.EINVAL])
def test_a_refused_node_is_a_debug_line(mbind, caplog, refusal):
    mbind.answer = refusal
    with caplog.at_level(logging.DEBUG):
        memory = arena.allocate(HUGE, node=3)
    memory[:] = 1
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("DEBUG", f"memory is not bound to node 3 ({os.strerror(refusal)})")
    ]


def policy_of(array):
    """What /proc says of the mapping that starts last before the array's end."""
    lines = Path("/proc/self/numa_maps").read_text().splitlines()
    places = ((int(line.split()[0], 16), line.split()[1]) for line in lines)
    return max(place for place in places if place[0] <= array.ctypes.data)[1]


def require_policies():
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("this kernel knows no NUMA policies")


@linux_only
def test_the_kernel_prefers_the_node():
    require_policies()
    nodes = sorted(Path("/sys/devices/system/node").glob("node[0-9]*"))
    node = int(nodes[0].name.removeprefix("node"))
    memory = arena.allocate(4 * HUGE, node=node)
    if "default" in policy_of(memory) and arena._mbind(0, 0, 1, np.ones(1, np.uint64)):
        pytest.skip("this kernel refuses NUMA policies")
    assert policy_of(memory) == f"prefer:{node}"
    assert policy_of(arena.allocate(4 * HUGE)) == "default"
    assert not memory.any()
    memory[:] = 7
    assert memory.min() == 7


@linux_only
def test_a_node_that_is_not_there_is_refused_by_the_kernel(caplog):
    with caplog.at_level(logging.DEBUG):
        memory = arena.allocate(HUGE, node=1 << 14)
    assert "not bound to node 16384" in caplog.text
    memory[:] = 1


def test_elsewhere_there_is_no_such_call(monkeypatch):
    monkeypatch.setattr(arena.sys, "platform", "darwin")
    assert arena._mbind(0, 4096, 1, np.ones(1, np.uint64)) == errno.ENOSYS
