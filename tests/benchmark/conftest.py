"""A benchmark on a clock that only fakes move."""

import pytest

from hybrid.benchmark import sample
from tests.benchmark.fakes import Clock, Opened


@pytest.fixture
def clock(monkeypatch):
    """In place of the real one."""
    own = Clock()
    monkeypatch.setattr(sample, "perf_counter_ns", own)
    return own


@pytest.fixture
def opened(clock):
    """Opens fake engines."""
    return Opened(clock)
