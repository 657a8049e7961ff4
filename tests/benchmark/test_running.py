"""The loop on an engine whose clock only it moves: every number of a row is known beforehand."""

import pytest

from hybrid.benchmark import Asked, Case, Heat, Predicted, Run, rows, to_json
from hybrid.benchmark import sample as sampling
from hybrid.benchmark.cases import depth_ids, token_ids
from hybrid.errors import RequestError
from hybrid.hardware import Rates
from tests.benchmark.fakes import (
    EXPERTS,
    PICKS,
    PREFILL_NS,
    RECORD,
    STEP_NS,
    VOCAB,
    FakeTimeline,
    Opened,
)


def timed(opened, *cases, **run):
    return list(rows(cases, opened, Run(**{"repetitions": 3} | run)))


def test_a_prompt_is_timed_without_what_was_before_it(opened):
    (row,) = timed(opened, Case(prompt=50, depth=20))
    assert row.rates == [1e9 / PREFILL_NS] * 3
    assert (row.mean, row.median, row.std) == (500, 500, 0)
    # depth, warm-up, three repetitions: each computes 50 tokens, none is found in the cache
    assert opened.engines[0].timeline.calls == [("prefill", 20, 20)] + [("prefill", 70, 50)] * 4


def test_generated_tokens_are_timed_one_by_one(opened):
    (row,) = timed(opened, Case(generated=5, depth=7))
    assert row.rates == [1e9 / STEP_NS] * 3
    calls = opened.engines[0].timeline.calls
    assert [name for name, *_ in calls] == ["prefill"] + ["step"] * 20
    fed = [token for _, token in calls[6:11]]
    assert fed == token_ids(Case(generated=5, depth=7), 0, VOCAB, 0)


def test_a_warm_prompt_is_computed_each_time(opened):
    timed(opened, Case(kind="warm", prompt=50))
    assert opened.engines[0].timeline.calls == [("prefill", 50, 50)] * 4


def test_the_check_sees_rows_of_the_last_repetition(opened, monkeypatch):
    """Planted: they are left where they are."""

    class Stuck(list):
        def __delitem__(self, _):
            pass

    monkeypatch.setattr(FakeTimeline, "rows", Stuck)
    timed(opened, Case(kind="warm", prompt=50))
    assert opened.engines[0].timeline.calls != [("prefill", 50, 50)] * 4


def test_cold_cases_load_for_every_repetition_and_warm_nothing_up(opened):
    (row,) = timed(opened, Case(kind="cold", generated=4))
    assert len(opened.engines) == len(row.samples) == 3
    assert all(len(engine.timeline.calls) == 4 for engine in opened.engines)
    assert all(engine.closed for engine in opened.engines)


def test_the_others_share_an_engine_and_a_depth(opened):
    timed(opened, Case(prompt=5, depth=9), Case(generated=2, depth=9), Case(kind="cold", prompt=3))
    first, *cold = opened.engines
    assert len(cold) == 3
    assert [call for call in first.timeline.calls if call[:2] == ("prefill", 9)] == [
        ("prefill", 9, 9)
    ]


def test_greedy_feeds_what_came_out(opened):
    timed(opened, Case(generated=4), asked=Asked(feed="greedy"))
    timeline = opened.engines[0].timeline
    fed = [token for _, token in timeline.calls[-4:]]
    assert fed[0] == token_ids(Case(generated=4), 2, VOCAB, 0)[0]
    assert fed[1:] == [sum(fed[:n]) % VOCAB for n in (1, 2, 3)]


def test_what_a_row_says_of_the_tiers(opened):
    peaks = Rates(ram_gb_s=0.01, disk_gb_s=0.0005)
    (row,) = timed(
        opened,
        Case(generated=10),
        peaks=lambda: peaks,
        predict=lambda *_: Predicted(80.0, {"head": 0.1}),
    )
    found = to_json(row)
    uses = 2 * PICKS  # of a token: two layers
    assert found["tiers"]["ram"] == {
        "share": 0.75,
        "bytes_per_token": 0.75 * uses * RECORD,
        # all records are computed by the CPU: 4 MB in 5 ms less 1 ms of waiting for the disk
        "gb_s": pytest.approx(uses * RECORD / 1e9 / 0.004),
        "peak_gb_s": 0.01,
        "of_peak": pytest.approx(100),
    }
    assert found["tiers"]["nvme"] == {
        "share": 0.25,
        "bytes_per_token": 0.25 * uses * RECORD,
        "gb_s": pytest.approx(RECORD / 1e9 / 0.002),
        "peak_gb_s": 0.0005,
        "of_peak": pytest.approx(1000),
    }
    assert found["tiers"]["vram"]["gb_s"] is None
    assert found["distinct_experts_per_step"] == PICKS
    assert found["stalled_s_per_token"] == pytest.approx(0.001)
    assert found["seconds_per_token"] == {
        "attention": pytest.approx(0.001),
        "experts": pytest.approx(0.005),
        "between": pytest.approx(0.004),
    }
    assert (found["predicted_ts"], found["error"]) == (80, 0.25)
    assert found["predicted_seconds"] == {"head": 0.1}


@pytest.mark.parametrize(("tokens", "passes"), [(1, 1), (2048, 1), (2049, 2)])
def test_a_prompt_uses_experts_once_a_pass(tokens, passes):
    assert sampling.passes(Case(prompt=tokens)) == passes
    assert sampling.passes(Case(generated=tokens)) == tokens


def test_a_prompt_of_one_pass_has_all_its_experts_in_one_step(opened):
    (row,) = timed(opened, Case(prompt=30))
    assert to_json(row)["distinct_experts_per_step"] == EXPERTS


def test_one_repetition_has_no_spread(opened):
    (row,) = timed(opened, Case(prompt=5), repetitions=1)
    assert (row.std, to_json(row)["stddev_ts"]) == (None, None)


def test_the_same_computation_has_the_same_hash_and_another_has_not(clock):
    def hashes(**options):
        return [
            (row.output_hash, to_json(row)["sample_hashes"])
            for row in timed(Opened(clock, **options), Case(prompt=9), Case(generated=9))
        ]

    assert hashes() == hashes()
    assert all(a != b for a, b in zip(hashes(), hashes(fault=1), strict=True))
    (short,) = timed(Opened(clock), Case(prompt=9), repetitions=2)
    assert to_json(short)["sample_hashes"] == hashes()[0][1][:2]


def test_heat_counts_the_warm_up_alone(opened):
    heat = Heat()
    timed(opened, Case(generated=10), heat=heat)
    (counts,) = heat.picks.values()
    assert list(heat.picks) == ["tg10 rotating"]
    assert counts.shape == (2, EXPERTS)
    assert (counts[:, :PICKS] == 10).all()
    assert (counts[:, PICKS:] == 0).all()


def test_what_has_no_room_is_refused_before_anything_is_timed(opened):
    cases = [Case(prompt=5), Case(kind="cold", prompt=5, depth=496)]
    with pytest.raises(RequestError, match=r"pp5 @ d496 needs 501 positions .* holds 500") as error:
        timed(opened, *cases)
    assert "\n" not in str(error.value)
    assert opened.engines[0].timeline.calls == []
    timed(opened, Case(prompt=4, depth=496))


def test_finished_rows_are_there_when_a_run_is_broken_off(opened):
    stops = iter([False] * 6 + [True] * 9)

    def poll():
        if next(stops):
            raise KeyboardInterrupt

    made = rows([Case(prompt=5), Case(prompt=6)], opened, Run(repetitions=3, poll=poll))
    assert next(made).case.prompt == 5
    with pytest.raises(KeyboardInterrupt):
        next(made)


def test_who_begins_is_told(opened):
    told = []
    timed(opened, Case(prompt=5), begin=lambda engine, case: told.append((engine, case.label)))
    assert told == [(opened.engines[0], "pp5")]


def test_depth_survives_its_cases(opened):
    timed(opened, Case(prompt=5, depth=9), Case(prompt=5, depth=12))
    tokens = opened.engines[0].timeline.tokens
    assert tokens[:12] == depth_ids(Case(prompt=5, depth=12), VOCAB, 0)
