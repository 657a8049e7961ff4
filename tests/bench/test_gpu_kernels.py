"""The table of GPU kernels: what is chosen, and that a row is what was compiled."""

import json
import sys

import pytest

pytest.importorskip("triton")

import gpu_kernels

from hybrid.placement.builtin import builtin_config
from hybrid.triton_build import CHIPS

pytestmark = pytest.mark.triton


def test_launches_of_every_package_have_names_of_their_own():
    text = builtin_config().text
    every = gpu_kernels.chosen(text, "")
    made = sum(len(launches(text)) for launches in gpu_kernels.PACKAGES.values())
    assert len(every) == made
    assert gpu_kernels.chosen(text, "experts: combine").keys() == {"experts: combine"}


def test_the_slowest_of_memory_and_units_is_the_roofline():
    launch = gpu_kernels.chosen(builtin_config().text, "int8 decode down")
    (down,) = launch.values()
    chip = next(chip for chip in CHIPS if chip.name == "RTX 4090")
    assert down.seconds(chip) == pytest.approx(down.bytes / 1008e9)


def test_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_kernels.py", "--only", "experts: combine"])
    gpu_kernels.main()
    table, last = capsys.readouterr().out.rsplit("\n", 2)[:2]
    row = json.loads(last)
    assert row["launch"] == "experts: combine"
    assert row["spills"] == 0
    assert row["paper_us"].keys() == set(gpu_kernels.SHOWN)
    assert "nothing measured" in table
