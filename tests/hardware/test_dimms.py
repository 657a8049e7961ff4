"""What memory modules promise, from tables that firmware wrote, or somebody else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.hardware.dimms import Dimm, parse_dimms, promised_gb_s
from tests.hardware.smbios import Module, table


def promise(machine, *modules, **kind):
    machine.dmi(table(*modules, **kind))
    return promised_gb_s(machine.roots.system)


def test_channels_add_up(machine):
    """4 channels of 64 bits at 4,800 MT/s: 4 x 38.4 GB/s."""
    four = [Module(f"P0 CHANNEL {c}", configured=4800) for c in "ABCD"]
    assert promise(machine, *four) == pytest.approx(4 * 38.4)


def test_two_modules_share_a_channel(machine):
    pair = [Module("P0 CHANNEL A", f"DIMM {i}") for i in (0, 1)]
    assert promise(machine, *pair) == 48.0


def test_a_channel_may_be_named_by_the_slot(machine):
    slots = ("Controller0-ChannelA-DIMM0", "Controller1-ChannelA-DIMM0")
    modules = [Module("BANK 0", slot) for slot in slots]
    assert promise(machine, *modules, modules[0]) == 96.0


def test_unnamed_channels_are_one_for_each_module(machine):
    assert promise(machine, Module("Not Specified", "A1"), Module("Not Specified", "A2")) == 96.0


@pytest.mark.parametrize(
    ("module", "mega_transfers"),
    [
        (Module("a", configured=5200), 5200),
        (Module("a", configured=0), 6000),  # not configured: what it could do
        (Module("a", configured=0xFFFF, extended=70_000), 70_000),
    ],
)
def test_speeds(module, mega_transfers):
    assert next(parse_dimms(table(module))) == Dimm("module 1", 64, mega_transfers)


@pytest.mark.parametrize(
    "module",
    [
        Module("a", size=0),  # an empty slot
        Module("a", configured=0, speed=0),
        Module("a", bits=200),
        Module("a", configured=0xFFFF, extended=200_000),
    ],
)
def test_modules_that_count_for_nothing(machine, module):
    assert promise(machine, module) is None


def test_without_tables(machine):
    assert promised_gb_s(machine.roots.system) is None


def test_a_table_that_is_cut_short(machine):
    whole = table(Module("CHANNEL A"), Module("CHANNEL B"))
    counts = [len(list(parse_dimms(whole[:end]))) for end in range(len(whole) + 1)]
    assert counts == sorted(counts)  # never more from less
    assert {0, 1, 2} == set(counts)


def test_nothing_behind_the_end_is_read():
    assert list(parse_dimms(table() + table(Module("a")))) == []
    assert len(list(parse_dimms(table(end=False) + table(Module("a"))))) == 1  # it would be seen


@pytest.mark.parametrize("length", range(4))
def test_a_structure_shorter_than_its_head_ends_the_table(length):
    broken = bytes((17, length)) + b"\0" * 8
    assert list(parse_dimms(broken + table(Module("a")))) == []


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_end_soon(content):
    for prefix in (b"", table(Module("CHANNEL A"), end=False)):
        found = list(parse_dimms(prefix + content))
        assert len(found) <= (len(prefix) + len(content)) // 6
        assert all(0 < dimm.gb_s <= 128 / 8 * 100 for dimm in found)
