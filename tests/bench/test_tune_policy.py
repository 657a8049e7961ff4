"""The pure parts of bench/tune_policy.py, and one small run of it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import tune_policy
from tune_policy import Score

from hybrid.cache.policy import DEFAULT
from tests.cache.routing import made


def scored(worth, promotions):
    """One share of promotions at the capacity that has a limit."""
    return Score(replace(DEFAULT, margin=worth), (worth,) * 4, (0.0, 0.0, promotions, 0.0))


def test_the_default_is_in_the_grid_and_nothing_is_there_twice():
    grid = list(tune_policy.candidates(tune_policy.GRID))
    assert DEFAULT in grid
    assert len(set(grid)) == len(grid) == np.prod([len(v) for v in tune_policy.GRID.values()])


def test_the_best_that_keeps_to_the_limit_is_chosen():
    busy, calm, worse = scored(0.9, 0.41), scored(0.8, 0.40), scored(0.7, 0.0)
    assert tune_policy.best([worse, busy, calm]) is calm
    assert tune_policy.best([worse, busy]) is worse


def test_a_promotion_is_half_a_miss():
    """Of 8 picks: one hit more is worth 1/8, one promotion costs 1/16."""
    free, paid = scored(0.5, 0.0), scored(0.5, 4.0)
    assert free.worth - paid.worth == pytest.approx(1 / 16)


def test_only_the_first_tokens_are_seen():
    trace = made(tokens=20)
    half = tune_policy.part(trace, 10)
    assert half.picks.shape == (10, *trace.picks.shape[1:])
    odd = tune_policy.part(trace, 10, 1, 2)
    assert np.array_equal(odd.picks, trace.picks[:10, 1::2])
    changed = replace(trace, picks=np.where(np.arange(20)[:, None, None] < 10, trace.picks, 0))
    assert tune_policy.score(half, DEFAULT, 0) == tune_policy.score(
        tune_policy.part(changed, 10), DEFAULT, 0
    )


def test_shares_are_rounded_up():
    trace = replace(made(tokens=1), experts=256)
    assert tune_policy.slots(trace, tune_policy.SHARES) == [6, 13, 29, 64]


def test_a_run_ends_with_one_line_of_json(tmp_path, monkeypatch, capsys):
    path = tmp_path / "small.jsonl"
    rows = enumerate(made(tokens=40).picks.tolist())
    path.write_text("".join(json.dumps({"tok": n, "layers": row}) + "\n" for n, row in rows))
    monkeypatch.setattr(sys, "argv", ["tune_policy.py", str(path), "--quick"])
    monkeypatch.setattr(tune_policy, "BUSIEST", (0.11, 1.0))
    tune_policy.main()
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["bench"] == "tune_policy"
    assert set(line["chosen"]) == set(tune_policy.GRID)
    assert {claim["policy"] for claim in line["claims"]} == {"decayed-lfu", "lru", "belady"}
