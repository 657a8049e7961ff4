"""Every instruction set's machine code gives numpy's bits, on the least CPU that announces it.

The bytes are the ones that the runtime loads. Buffers have exactly the size that the interface
grants and touch unmapped pages, so a kernel that reads or writes further does not return.
"""

import numpy as np
import pytest

from hybrid.cpu_experts.isas import executable
from tests.emulation.compare import KERNELS, expected, same_bits
from tests.emulation.executed import Run, executed, executed_beyond
from tests.emulation.native import on_this_host
from tests.emulation.needs import needs_emulator

pytestmark = [needs_emulator, pytest.mark.emulated]

EXACT = 2**24  # integers of float32 below this have all their bits


def wrong(runs: list[Run]) -> list[str]:
    """Names of runs that broke a rule or differ from numpy, with the reason."""
    found = []
    for one in runs:
        if one.outcome.offences:
            found.append(f"{one.name}: {'; '.join(one.outcome.offences)}")
        elif not same_bits(one.out, expected(one.case)):
            found.append(f"{one.name}: other bits than numpy's")
    return found


@KERNELS
def test_numpy_gives_the_same_bits(isa, mode):
    runs = executed(isa)[mode]
    assert len(runs) > 100
    assert wrong(runs) == []


@KERNELS
def test_unit_scales_give_exact_integers(isa, mode):
    """Against integers that never were bytes: so numpy's reference reads the record right."""
    runs = [one for one in executed(isa)[mode] if one.name.startswith("unit")]
    assert len(runs) == 14
    for one in runs:
        sums = one.case.partial_sums
        assert np.abs(sums).max() < EXACT
        assert np.array_equal(one.out.astype(np.int64), sums[-1]), one.name


@KERNELS
def test_a_token_does_not_see_its_neighbours(isa, mode):
    """Whatever the number of tokens, and whichever shape it selects, they have the same bits."""
    runs = {one.name: one.out for one in executed(isa)[mode] if one.name.startswith("random")}
    for name, out in runs.items():
        whole = runs[name.rpartition(", ")[0] + ", 64 tokens"]
        assert same_bits(out, whole[: len(out)]), name


@KERNELS
def test_the_host_gives_the_same_bits(isa, mode):
    """Where this host has the instructions: its CPU and the emulated one check each other."""
    if isa not in executable():
        pytest.skip(f"this host cannot execute {isa}")
    for one in executed(isa)[mode]:
        assert same_bits(on_this_host(isa, one.case), one.out), one.name


@KERNELS
def test_one_more_block_group_or_token_faults(isa, mode):
    """The buffers are as large as needed, and reading on would be seen."""
    assert executed_beyond(isa)[mode] == [False, True, True, True]


def test_tiles_are_used_where_there_are_tiles():
    many = [one for one in executed("amx")["int8"] if one.name.endswith("64 tokens")]
    assert many
    assert all("tdpbssd" in one.outcome.trapped for one in many)


@pytest.mark.slow
@KERNELS
def test_every_size_and_every_extreme(isa, mode):
    assert wrong(executed(isa, everything=True)[mode]) == []
