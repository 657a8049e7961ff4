"""The share of hits: the fit against the replays that its docstring shows."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid.placement import hits as hits_module
from hybrid.placement.hits import DEVICE, RAM, Fit, hits

NUMBERS = [
    [float(number) for number in re.findall(r"0\.\d+", line)]
    for line in hits_module.__doc__.splitlines()
    if len(re.findall(r"0\.\d+", line)) > 5
]
shares = st.floats(0, 1)


@pytest.mark.parametrize(("row", "fit"), [(1, DEVICE), (2, RAM)])
def test_the_fit_is_within_what_its_docstring_says(row, fit):
    held, replayed = NUMBERS[0], NUMBERS[row]
    assert len(held) == len(replayed) == 9
    assert max(abs(fit(s) - hit) for s, hit in zip(held, replayed, strict=True)) <= 0.014


def test_another_fit_would_be_seen():
    held, replayed = NUMBERS[0], NUMBERS[2]
    other = Fit(RAM.a, RAM.b * 1.1)
    assert max(abs(other(s) - hit) for s, hit in zip(held, replayed, strict=True)) > 0.014


@given(shares, shares)
def test_more_of_the_experts_hit_more(one, other):
    low, high = sorted((one, other))
    for fit in (DEVICE, RAM):
        assert 0 <= fit(low) <= fit(high) <= 1
        assert fit(low) >= low - 1e-12  # never worse than at random


@given(st.integers(1, 30_000), shares, shares, st.sampled_from(["local", "uniform"]))
def test_shares_add_up(records, vram, ram, routing):
    on_device = int(records * vram)
    found = hits(records, on_device, int((records - on_device) * ram), routing)
    assert found.vram + found.ram + found.nvme == pytest.approx(1)
    assert min(found.vram, found.ram, found.nvme) >= -1e-12


def test_the_ends():
    assert hits(100, 0, 100, "local").nvme == 0
    assert hits(100, 0, 0, "local").nvme == 1
    assert hits(0, 0, 0, "local").nvme == 0
    assert hits(100, 30, 20, "uniform").nvme == pytest.approx(0.5)
