"""Weight memory: private, zeroed, on huge pages, refused in one line."""

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
