"""Interleaved rounds: machine, our layers, peers; every step once a round with equal inputs."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import synthetic
from ceilings import STREAMS, Team
from ours import Ours
from peer import PeerError, PeerProcess
from rows import MACHINE, Sample, Samples, Subject
from synthetic import EXPERT_MACS, RECORD_BYTES, TOP_K, Routing

READ_RECORDS = 32  # a read of that many takes some 25 ms: starting its threads does not show
AGREE = 3e-2  # relative L2; int8 activations alone cost 1.2e-2 on either side
LONGEST_S = 15  # a peer's step that would take longer is left out

Engine = Ours | PeerProcess


@dataclass(slots=True)
class Run:
    """What is measured, and what has been found."""

    options: argparse.Namespace
    engines: list[Engine]
    x: np.ndarray  # [most tokens, hidden]
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    samples: dict[Subject, list[Sample]] = field(default_factory=dict)
    pace: dict[Engine, float] = field(default_factory=dict)  # seconds a token of the last prefill
    left_out: dict[str, str] = field(default_factory=dict)


def measure(run: Run, records: np.ndarray) -> Samples:
    """Interleaved rounds of everything; the first warms up and does not count."""
    teams = [Team(threads) for threads in run.options.threads]
    for number in range(run.options.rounds + 1):
        for team in teams:
            found = [*_machine(run, team, records), *_steps(run, team.threads, number)]
            for subject, sample in found if number else ():
                run.samples.setdefault(subject, []).append(sample)
        print(f"round {number} of {run.options.rounds}", file=sys.stderr)
    return run.samples


def _machine(run: Run, team: Team, records: np.ndarray) -> Iterator[tuple[Subject, Sample]]:
    count = min(READ_RECORDS, len(records))
    first = int(run.rng.integers(0, len(records) - count + 1))
    for what, streams in (("read", 1), ("streams", STREAMS)):
        nbytes, seconds = team.read(records[first : first + count], streams)
        yield Subject(MACHINE, what, team.threads), Sample(seconds, nbytes=nbytes)
    for isa in run.options.peaks:
        macs, seconds = team.peak(isa)
        yield Subject(MACHINE, "peak", team.threads, isa), Sample(seconds, macs=macs)


def _steps(run: Run, threads: int, number: int) -> Iterator[tuple[Subject, Sample]]:
    options = run.options
    prefill = options.prefill if number <= options.prefill_rounds else []
    steps = [("decode", tokens) for tokens in options.decode]
    steps += [("prefill", tokens) for tokens in prefill]
    for experts in options.experts:
        for what, tokens in steps:
            warm, timed = (synthetic.routing(run.rng, n, experts) for n in (1, tokens))
            for engine in run.engines:
                if engine.threads != threads or _too_slow(run, engine, tokens):
                    continue
                seconds = _timed(run, engine, warm, timed)
                if what == "prefill":
                    run.pace[engine] = seconds / tokens
                subject = Subject(
                    engine.engine, what, threads, engine.isa, engine.activation, tokens, experts
                )
                nbytes, macs = timed.distinct * RECORD_BYTES, tokens * TOP_K * EXPERT_MACS
                yield subject, Sample(seconds, nbytes, macs, timed.distinct)


def _too_slow(run: Run, engine: Engine, tokens: int) -> bool:
    expected = run.pace.get(engine, 0.0) * tokens
    if isinstance(engine, Ours) or expected <= LONGEST_S:
        return False
    step = f"{engine.engine}, {engine.threads} threads, {tokens} tokens"
    run.left_out[step] = f"about {expected:.0f} s"
    return True


def _timed(run: Run, engine: Engine, warm: Routing, timed: Routing) -> float:
    engine.resume()
    try:
        engine.step(run.x[:1], warm)  # wakes its threads
        seconds, _ = engine.step(run.x[: len(timed.ids)], timed)
    finally:
        engine.suspend()
    return seconds


def check(ours: Ours, peer: PeerProcess, experts: int) -> float:
    """Relative L2 of a peer against us; PeerError if it computes something else."""
    x = synthetic.activations(4)
    routing = synthetic.routing(np.random.default_rng(3), 4, experts)
    _, want = ours.step(x, routing, output=True)
    peer.resume()
    _, got = peer.step(x, routing, output=True)
    peer.suspend()
    error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
    if not error < AGREE:
        raise PeerError(
            f"{peer.engine} differs from our output by {error:.1e} (relative L2); "
            f"below {AGREE} it would be compared"
        )
    return error
