"""The simulated timelines: a clock that agrees with the formula where it must, and the paper."""

import json
import sys

import numpy as np
import prefill_split as bench
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.cache.split import Costs, split

rates = st.floats(0.1, 1000)


@st.composite
def layers(draw):
    tokens = draw(st.lists(st.floats(1, 3000), min_size=1, max_size=60))
    return np.array(tokens), Costs(10**7, 10**8, *(draw(rates) for _ in range(5)))


@settings(max_examples=80, deadline=None)
@given(layers())
def test_the_clock_is_never_ahead_of_the_formula(layer):
    """The formula lets uploads run ahead for ever and launches each record by itself."""
    tokens, costs = layer
    found = split(tokens, tokens < 0, costs)
    late = bench.clock(found, tokens, costs)
    assert late >= found.seconds * (1 - 1e-9)
    streamed = float(costs.device_s(tokens[found.streamed]).sum())
    alone = len(found.streamed) * costs.upload_s + streamed
    assert late <= max(found.cpu_s, alone) * (1 + 1e-9)  # one thing at a time


def test_where_the_link_is_slow_a_layer_ends_one_launch_later_at_most():
    tokens = np.full(100, 10.0)
    costs = Costs(10**7, 10**8, 1.0, 1000.0, 100.0, 1.0, 1.0)
    found = split(tokens, tokens < 0, costs)
    more = bench.TOGETHER * float(costs.device_s(tokens[:1])[0])
    assert bench.clock(found, tokens, costs) <= found.seconds + more


def test_a_short_ring_holds_a_slow_device_back():
    tokens = np.concatenate([np.full(20, 1000.0), np.full(40, 1.0)])
    costs = Costs(10**7, 10**8, 1.0, 1000.0, 1000.0, 0.0, 0.0)
    found = split(tokens, tokens < 0, costs)
    assert bench.clock(found, tokens, costs, ring=4) > bench.clock(found, tokens, costs, ring=60)


def test_the_papers_figures_come_out():
    """Its curves are known at a few points only: 2 % covers how one draws them, and rounding."""
    ratios = [row["ratio"] for row in bench.paper_rows()]
    assert len(ratios) == 32
    assert max(abs(ratio - 1) for ratio in ratios) < 0.02


def test_another_link_would_be_seen(monkeypatch):
    monkeypatch.setattr(bench, "CPU_TOKENS_S", 160)
    assert max(abs(row["ratio"] - 1) for row in bench.paper_rows()) > 0.02


@pytest.mark.parametrize("skew", bench.SKEWS)
def test_popularity_is_what_is_known_of_it(skew):
    found = bench.popularity(skew, 380)
    assert found.sum() == pytest.approx(1)
    assert (np.diff(found) <= 1e-12).all()
    for part, share in bench.SKEWS[skew]:
        assert found[: round(part * 380)].sum() == pytest.approx(share)


def test_machines_are_never_slower_split():
    for row in bench.machine_rows([512, 4096]):
        assert row["split"] >= max(row["cpu"], row["stream"])
        assert row["clock"] <= row["split"]


def test_the_last_line_is_json(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["prefill_split.py", "--no-measure", "--tokens", "2048"])
    bench.main()
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["bench"] == "prefill_split"
    assert {"paper", "machines", "environment", "split_us"} <= line.keys()
    assert "measured" not in line
