"""Bytes in, slots out: never more than is paid for but for the few that work needs."""

from hypothesis import given
from hypothesis import strategies as st

from hybrid.cache.capacity import FEWEST_SLOTS, LANDING, SWAP_SLOTS, capacity

SIZE = 4096
records = st.integers(0, 300)
budgets = st.integers(0, 400 * SIZE)


@given(records, budgets, budgets)
def test_slots_are_paid_for_or_needed(count, vram, ram):
    got = capacity(count, SIZE, vram, ram)
    assert 0 <= got.device <= min(count, vram // SIZE)
    most = max(ram // SIZE, FEWEST_SLOTS) if got.from_file else ram // SIZE + SWAP_SLOTS
    assert 0 <= got.ram <= most
    assert 0 <= got.landing <= got.ram
    assert got.landing <= LANDING


@given(records, budgets, budgets)
def test_every_record_has_a_place_or_a_file(count, vram, ram):
    got = capacity(count, SIZE, vram, ram)
    if not got.from_file:
        assert got.device + got.resident == count
    else:
        assert got.device + ram // SIZE < count
        assert got.landing >= FEWEST_SLOTS


@given(records, budgets, budgets)
def test_what_goes_to_the_device_goes_through_ram(count, vram, ram):
    """Without a slot there, no record could get to the device."""
    got = capacity(count, SIZE, vram, ram)
    assert not got.device or got.landing > 0


@given(records, budgets, budgets, st.integers(0, 400 * SIZE), st.booleans())
def test_more_budget_is_never_fewer_records_in_memory(count, vram, ram, more, on_device):
    less = capacity(count, SIZE, vram, ram)
    grown = capacity(count, SIZE, vram + more * on_device, ram + more * (not on_device))
    assert grown.device >= less.device
    assert grown.device + grown.resident >= less.device + less.resident


def test_no_budget_at_all_is_four_slots_to_read_into():
    got = capacity(10, SIZE, 0, 0)
    assert (got.device, got.ram, got.landing, got.resident) == (0, 4, 4, 0)
    assert got.from_file


def test_a_model_without_experts_takes_nothing():
    got = capacity(0, SIZE, 10 * SIZE, 10 * SIZE)
    assert (got.device, got.ram, got.from_file) == (0, 0, False)


def test_all_on_the_device_still_leaves_slots_to_go_through():
    got = capacity(10, SIZE, 10 * SIZE, 0)
    assert (got.device, got.ram, got.resident, got.from_file) == (10, SWAP_SLOTS, 0, False)
