"""One timed repetition: how long, which tokens came out, and what every tier did meanwhile.

    timeline cut to the depth -> clock -> prefill, or a step a token -> clock -> counters again

Timed is what computes logits, and when generating finds the largest; no sampling, no text, no stop
token. What is fed then: random ids as llama-bench does, or the model's own greedy choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Literal

import numpy as np

from hybrid.benchmark.cases import Case, depth_ids, output_hash, token_ids
from hybrid.engine import Engine
from hybrid.errors import RequestError
from hybrid.timeline import PASS_TOKENS, Timeline
from hybrid.vision.prompt import Prompt

Feed = Literal["random", "greedy"]
Poll = Callable[[], None]
TIERS = ("vram", "ram", "nvme")
LIKELIEST = 16  # next tokens behind a prompt, in order: one alone would say little
_COUNTERS = {  # of each tier: what `engine.stats()` calls it
    "vram": ("expert_reads", "bytes", "promotions", "copied_bytes"),
    "ram": ("expert_reads", "bytes"),
    "nvme": ("expert_reads", "bytes", "read_bytes", "busy_s", "stalled_s"),
}
Counts = Mapping[str, float]  # "nvme.read_bytes" -> sum since loading, or within a sample


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition of a case."""

    ns: int
    output_hash: str
    counts: Counts

    @property
    def seconds(self) -> float:
        """Of the clock."""
        return self.ns / 1e9


@dataclass(frozen=True, slots=True)
class Asked:
    """What all repetitions have in common."""

    seed: int = 0
    feed: Feed = "random"


def timeline_of(engine: Engine) -> Timeline:
    """The engine's tokens and KV cache: `generate` would stop at a stop token, and reuse rows."""
    return engine._open()


def require_room(engine: Engine, cases: Sequence[Case]) -> None:
    """Refuse what the KV cache cannot hold, before anything is timed."""
    longest = max(cases, key=lambda case: case.positions)
    if longest.positions > (room := engine.kv_tokens):
        raise RequestError(
            f"{longest.label} needs {longest.positions:,} positions but the KV cache holds "
            f"{room:,}; time less, or load more context if the model allows it",
            "context",
        )


def fill_depth(engine: Engine, case: Case, asked: Asked, poll: Poll) -> None:
    """Put the tokens before a case into the KV cache, unless they are there."""
    timeline = timeline_of(engine)
    ids = depth_ids(case, engine.config.text.vocab_size, asked.seed)
    if timeline.tokens[: case.depth] != ids:
        timeline.prefill(Prompt(ids), poll)


def take(engine: Engine, case: Case, repetition: int, asked: Asked, poll: Poll) -> Sample:
    """Time one repetition; the depth must be in the cache already."""
    ids = token_ids(case, repetition, engine.config.text.vocab_size, asked.seed)
    timeline = timeline_of(engine)
    del timeline.tokens[case.depth :]  # rows of the last repetition must not be found again
    before = counts(engine.stats())
    if case.prompt:
        ns, out = _prefill(timeline, ids, poll)
    else:
        ns, out = _generate(timeline, ids, asked.feed, poll)
    after = counts(engine.stats())
    return Sample(ns, output_hash(out), {name: after[name] - before[name] for name in after})


def passes(case: Case) -> int:
    """How often the experts of a layer are called for it."""
    return -(-case.prompt // PASS_TOKENS) if case.prompt else case.generated


def shares(samples: Sequence[Sample]) -> dict[str, float]:
    """Which part of all uses of experts each tier served; empty for a model without experts."""
    uses = {
        tier: sum(sample.counts[f"{tier}.expert_reads"] for sample in samples) for tier in TIERS
    }
    total = sum(uses.values())
    return {tier: used / total for tier, used in uses.items()} if total else {}


def counts(stats: Mapping[str, Any]) -> dict[str, float]:
    """The counters in `engine.stats()` that only grow, by flat names."""
    found = {f"seconds.{name}": float(value) for name, value in stats["seconds"].items()}
    for tier, names in _COUNTERS.items():
        found |= {f"{tier}.{name}": float(stats["tiers"][tier][name]) for name in names}
    return found


def _prefill(timeline: Timeline, ids: list[int], poll: Poll) -> tuple[int, list[int]]:
    prompt = Prompt([*_known(timeline), *ids])
    began = perf_counter_ns()
    logits, _ = timeline.prefill(prompt, poll)
    spent = perf_counter_ns() - began
    likeliest: list[int] = np.argsort(-logits, kind="stable")[:LIKELIEST].tolist()
    return spent, likeliest


def _generate(
    timeline: Timeline, ids: Sequence[int], feed: Feed, poll: Poll
) -> tuple[int, list[int]]:
    out: list[int] = []
    began = perf_counter_ns()
    for token in ids:
        follows = feed == "greedy" and out
        out.append(int(np.argmax(timeline.step(out[-1] if follows else token, poll))))
    return perf_counter_ns() - began, out


def _known(timeline: Timeline) -> list[int]:
    """The tokens of the depth: text, no pictures."""
    return [token for token in timeline.tokens if isinstance(token, int)]
