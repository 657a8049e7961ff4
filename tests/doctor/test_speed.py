"""Measured against promised: just enough passes, a little less fails."""

import pytest

from hybrid.doctor import speed
from hybrid.hardware import Ram, Rates

PROMISE = Ram(peak_gb_s=100.0)


@pytest.mark.parametrize(
    ("rates", "ram", "ok"),
    [
        (Rates(ram_gb_s=60.0), PROMISE, True),
        (Rates(ram_gb_s=59.0), PROMISE, False),  # as with half of the channels empty
        (Rates(ram_gb_s=60.0), Ram(), None),
        (Rates(), PROMISE, None),
    ],
)
def test_memory_bandwidth(rates, ram, ok):
    check = speed.memory_bandwidth(rates, ram)
    assert check.ok is ok
    assert ("dmidecode" in check.fix) is (ok is False)


@pytest.mark.parametrize(
    ("experts", "hidden", "ok"),
    [(60.0, 7168, True), (59.0, 7168, False), (5.0, 64, None), (None, 7168, None)],
)
def test_expert_kernel(experts, hidden, ok):
    rates = Rates(ram_gb_s=100.0, experts_gb_s=experts, experts_gflop_s=1234.0)
    check = speed.kernel_bandwidth(rates, hidden)
    assert check.ok is ok
    assert ("1,234 GFLOP/s" in check.found) is (experts is not None)


@pytest.mark.parametrize(
    ("rate", "needed", "measured", "ok"),
    [
        (1.0, True, True, True),
        (0.9, True, True, False),
        (0.9, False, True, None),
        (None, True, True, None),
        (None, True, False, None),
    ],
)
def test_disk(rate, needed, measured, ok):
    check = speed.disk_speed(Rates(disk_gb_s=rate), needed, measured)
    assert check.ok is ok
