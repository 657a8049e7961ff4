"""Driver, torch, card and slot: what fits, and each way not to."""

from dataclasses import replace

import pytest

from hybrid.doctor import gpus
from hybrid.doctor.gpus import Torch
from hybrid.hardware.devices import Slot, driver_version, has_driver, nvidia_slots
from tests.hardware import machines
from tests.hardware.machines import Machine

CARD = Slot("0000:01:00.0", 5, 16, 16)
GOOD = Torch("2.13.0+cu130", "13.0", True, ("sm_80", "sm_90", "sm_120"), ((12, 0),))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path / "machine", monkeypatch)


def test_no_card():
    checks = [gpus.driver([], False, None), gpus.torch_match(None, False, None), gpus.links([])]
    assert [check.ok for check in checks] == [None] * 3


def test_a_card_without_a_driver():
    check = gpus.driver([CARD], False, None)
    assert check.ok is False
    assert "ubuntu-drivers" in check.fix
    assert gpus.driver([CARD], True, "580.1").ok


def test_all_fits():
    check = gpus.torch_match(GOOD, True, "580.1")
    assert check.ok
    assert check.found == "torch 2.13.0+cu130, CUDA 13.0, driver 580.1"


@pytest.mark.parametrize(
    ("torch", "found"),
    [
        (None, "cannot be imported"),
        (Torch("2.13.0+cpu", None, False), "is a CPU build"),
        (replace(GOOD, available=False), "sees no device, driver 550.1"),
        (replace(GOOD, capabilities=((7, 5),)), "no code for sm_75"),
        (replace(GOOD, capabilities=((12, 0), (10, 0))), "no code for sm_100"),
        (replace(GOOD, architectures=("sm_89", "odd", "sm_x"), capabilities=((8, 6),)), "sm_86"),
    ],
)
def test_torch_that_does_not_fit(torch, found):
    check = gpus.torch_match(torch, True, "550.1")
    assert check.ok is False
    assert found in check.found
    assert check.fix


@pytest.mark.parametrize(
    ("architectures", "capability"),
    [(("sm_80",), (8, 9)), (("compute_90",), (12, 0)), (("sm_90a",), (9, 0))],
)
def test_code_runs_on_later_cards(architectures, capability):
    torch = replace(GOOD, architectures=architectures, capabilities=(capability,))
    assert gpus.torch_match(torch, True, "580.1").ok


def test_links_of_other_machines(machine):
    machines.two_epycs(machine)
    slots = nvidia_slots(machine.roots.system)
    check = gpus.links(slots)
    assert check.ok is False
    assert check.found == "generation 5 x16 of x16, generation 5 x8 of x16"
    assert gpus.links(slots[:1]).ok
    assert gpus.links([Slot("a", None, None, None)]).ok is None
    assert gpus.driver(slots, has_driver(machine.roots), driver_version(machine.roots)).ok


def test_torch_is_asked_without_a_driver_too():
    """It says of itself what it is, on any machine."""
    found = gpus.ask_torch()
    assert found is not None
    assert found.version.startswith("2.")
    assert found.available is bool(found.capabilities)
