"""The loop over cases: a warm-up and repetitions on one engine; cold ones get an engine each.

    open() -> engine     for each warm or rotating case: depth, warm-up, repetitions
    open() -> engine     for each repetition of a cold case: depth, one sample

Rows come as they are finished, so that a run that was broken off has those before.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from hybrid.benchmark.cases import Case
from hybrid.benchmark.heat import Heat
from hybrid.benchmark.noise import cores_of_others, usage
from hybrid.benchmark.prediction import Predict
from hybrid.benchmark.row import Row
from hybrid.benchmark.sample import Asked, Poll, Sample, fill_depth, require_room, shares, take
from hybrid.engine import Engine
from hybrid.hardware import Rates

WARM_UP = -1  # its number among the repetitions

Open = Callable[[], AbstractContextManager[Engine]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a benchmark is to do, beside its cases."""

    repetitions: int = 5
    asked: Asked = field(default_factory=Asked)
    predict: Predict = lambda _engine, _case, _shares: None
    peaks: Callable[[], Rates] = Rates  # asked with every row
    poll: Poll = lambda: None  # called before each layer; may raise to end the run
    begin: Callable[[Engine, Case], None] = lambda _engine, _case: None  # told of every case
    heat: Heat | None = None  # if wanted, filled by the warm-up of the first case that has one


def rows(cases: Sequence[Case], open_engine: Open, run: Run) -> Iterator[Row]:
    """Time every case; raises RequestError where the KV cache is too small for one."""
    settled = [case for case in cases if case.kind != "cold"]
    if settled:
        with open_engine() as engine:
            require_room(engine, cases)
            for case in settled:
                run.begin(engine, case)
                before = usage()
                samples = _repeated(engine, case, run)
                yield _row(engine, case, samples, run, cores_of_others(before, usage()))
    for case in cases:
        if case.kind == "cold":
            yield _cold(case, open_engine, run)


def _repeated(engine: Engine, case: Case, run: Run) -> list[Sample]:
    fill_depth(engine, case, run.asked, run.poll)
    if run.heat is None:
        take(engine, case, WARM_UP, run.asked, run.poll)
    else:  # outside what is timed: counting costs time
        with engine.record(run.heat.of(case, engine.config.text)):
            take(engine, case, WARM_UP, run.asked, run.poll)
    numbers = range(run.repetitions)
    return [take(engine, case, number, run.asked, run.poll) for number in numbers]


def _cold(case: Case, open_engine: Open, run: Run) -> Row:
    samples: list[Sample] = []
    before = usage()
    for number in range(run.repetitions):
        with open_engine() as engine:
            require_room(engine, [case])
            run.begin(engine, case)
            fill_depth(engine, case, run.asked, run.poll)
            samples.append(take(engine, case, number, run.asked, run.poll))
    return _row(engine, case, samples, run, cores_of_others(before, usage()))


def _row(
    engine: Engine, case: Case, samples: Sequence[Sample], run: Run, noise: dict[str, float]
) -> Row:
    return Row(
        case=case,
        samples=tuple(samples),
        moe_layers=engine.config.text.moe_layers,
        predicted=run.predict(engine, case, shares(samples)),
        peaks=run.peaks(),
        noise=noise,
    )
