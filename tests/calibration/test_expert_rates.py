"""The experts under the calibration: every one in turn, within the memory that is free."""

import numpy as np
import pytest

from hybrid.calibration import expert_rates
from hybrid.calibration.expert_rates import ExpertRates
from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import PlacementError
from hybrid.hardware.kept_rates import RatesOf
from hybrid.hardware.model_sizes import ModelSizes

SIZES = ModelSizes(64, 32, 4, ((64, 64),))
WHAT = RatesOf("portable", 1, "int8", SIZES)
RECORD = RecordShape(64, 32).nbytes
FREE = 4 * 10 * RECORD  # a quarter of it is ten records, of which two tokens' worth are used


@pytest.fixture
def rates():
    return ExpertRates(WHAT, FREE, 0)


@pytest.fixture
def asked(rates, monkeypatch):
    """The ids of each forward."""
    seen, real = [], rates.layer.forward

    def forward(x, ids, weights, out=None):
        seen.append(ids.copy())
        return real(x, ids, weights, out)

    monkeypatch.setattr(rates.layer, "forward", forward)
    return seen


def test_tokens_use_all_experts_before_one_again(rates, asked):
    nbytes, seconds = rates.tokens()
    assert [list(ids[0]) for ids in asked] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert nbytes == 8 * RECORD
    assert seconds > 0
    rates.token()
    assert list(asked[-1][0]) == [0, 1, 2, 3]


def test_a_prompt_asks_each_expert_as_often(rates, asked, monkeypatch):
    monkeypatch.setattr(expert_rates, "TOKENS_EACH", 6)
    flop, _ = rates.prompt()
    (ids,) = asked
    assert (np.bincount(ids.ravel()) == 6).all()
    assert all(len(set(row)) == 4 for row in ids)  # as a router picks
    assert flop == 2 * ids.size * 3 * 64 * 32


def test_experts_lie_apart_and_compute_the_same(rates):
    records = rates.memories[0].reshape(8, -1)
    assert (records == records[0]).all()
    assert records.any()
    out = [
        rates.layer.forward(rates._x, np.full((1, 1), e, np.int32), np.ones((1, 1), np.float32))
        for e in (0, 7)
    ]
    assert (out[0] == out[1]).all()
    assert np.isfinite(out[0]).all()


def test_memory_is_a_quarter_of_what_is_free(monkeypatch):
    monkeypatch.setattr(expert_rates, "LEAST_BYTES", 100 * RECORD)
    assert ExpertRates(WHAT, 4 * 40 * RECORD, 0).layer.n_experts == 40
    assert ExpertRates(WHAT, 1 << 30, 0).layer.n_experts == 100
    assert ExpertRates(WHAT, 1 << 30, 50 * RECORD).layer.n_experts == 148  # beyond three caches
    monkeypatch.setattr(expert_rates, "MOST", 12)
    assert ExpertRates(WHAT, 1 << 30, 0).layer.n_experts == 12


def test_too_little_memory_is_refused():
    with pytest.raises(PlacementError, match="too little to measure the experts"):
        ExpertRates(WHAT, 4 * 7 * RECORD, 0)
