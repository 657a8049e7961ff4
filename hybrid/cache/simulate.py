"""Plays a routing trace against a policy: how many picks find their expert in the fast tier.

    replay        the device over RAM: a miss is computed in place, a promotion is a copy
    replay_ram    RAM over a file: a miss is read, whoever it is, and then the worst leave
    replay_bound  either, with Belady's knowledge of the future

What decides is the code that decides in the runtime (`policy.py`), called in the same order: the
picks of a step are looked up, then observed, then the policy settles. Tokens of a prompt come in
blocks. Each layer is played by itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybrid.cache.belady import keep_soonest, next_picks
from hybrid.cache.policy import Memory, Policy
from hybrid.cache.trace_file import Trace

BLOCK = 512  # prompt tokens in a block, as the timeline makes them
BOUND = "belady"
Slots = int | NDArray[np.int64]  # the same for all layers, or one number a layer


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of it. Decoded tokens count, prompts do not; `warm` is their second half.

    Promotions are records brought into the tier; in `replay_ram` those are the reads.
    """

    policy: str
    slots: int  # of a layer; of unequal layers the mean, rounded
    hit_rate: float
    warm_hit_rate: float
    promotions_per_layer_step: float
    warm_promotions_per_layer_step: float
    misses_per_layer_step: float


@dataclass(frozen=True, slots=True)
class Step:
    """One token, or a block of a prompt: rows `first` to `last` (exclusive) of the trace."""

    first: int
    last: int
    prompt: bool


@dataclass(slots=True)
class _Counts:
    """Sums over layers. [tokens]"""

    hits: NDArray[np.int64]
    picks: NDArray[np.int64]
    promotions: NDArray[np.int64]


def steps(prompt: NDArray[np.bool_]) -> Iterator[Step]:
    """The blocks in which the runtime would take these tokens. [tokens]"""
    first = 0
    while first < len(prompt):
        last = first + 1
        if prompt[first]:
            while last < len(prompt) and prompt[last] and last - first < BLOCK:
                last += 1
        yield Step(first, last, bool(prompt[first]))
        first = last


def replay(trace: Trace, policy: Policy, slots: Slots) -> Replay:
    """The device's share. A fixed policy begins with the profile of the first half of tokens."""

    def play(layer: int, room: int, counts: _Counts) -> None:
        memory, resident = _beginning(trace, policy, layer, room)
        for step in steps(trace.prompt):
            picks = trace.picks[step.first : step.last, layer]
            _count_hits(counts, step, resident, picks)
            memory = policy.observe(memory, picks, room)
            for swap in policy.swaps(memory, resident, room, picks[-1], len(picks)):
                resident[swap.incoming] = True
                if swap.outgoing is not None:
                    resident[swap.outgoing] = False
                counts.promotions[step.first] += 1

    return _played(trace, policy.name, slots, play)


def replay_ram(trace: Trace, policy: Policy, slots: Slots) -> Replay:
    """RAM's share where a file has the rest."""

    def play(layer: int, room: int, counts: _Counts) -> None:
        memory, present = _beginning(trace, policy, layer, room)
        for step in steps(trace.prompt):
            picks = trace.picks[step.first : step.last, layer]
            _count_hits(counts, step, present, picks)
            memory = policy.observe(memory, picks, room)
            missed = _picked(picks, trace.experts) & ~present
            counts.promotions[step.first] += np.count_nonzero(missed)
            present = policy.keep(memory, present | missed, room)

    return _played(trace, policy.name, slots, play)


def replay_bound(trace: Trace, slots: Slots) -> Replay:
    """The most that any policy can reach in either tier; its promotions are what it lets in."""

    def play(layer: int, room: int, counts: _Counts) -> None:
        following = next_picks(trace.picks[:, layer], trace.experts)
        due = np.full(trace.experts + 1, len(following), np.int64)  # the last cell: picks of -1
        present = np.zeros(trace.experts, np.bool_)
        for step in steps(trace.prompt):
            picks = trace.picks[step.first : step.last, layer]
            _count_hits(counts, step, present, picks)
            for token, chosen in enumerate(picks, step.first):
                due[chosen] = following[token]
            picked = _picked(picks, trace.experts)
            kept = keep_soonest(due[:-1], present | picked, room)
            counts.promotions[step.first] += np.count_nonzero(kept & ~present)
            present = kept

    return _played(trace, BOUND, slots, play)


def _played(
    trace: Trace, name: str, slots: Slots, play: Callable[[int, int, _Counts], None]
) -> Replay:
    """Play all layers and sum up."""
    tokens = len(trace.picks)
    counts = _Counts(*(np.zeros(tokens, np.int64) for _ in range(3)))
    rooms = np.broadcast_to(np.asarray(slots, np.int64), (trace.layers,))
    for layer, room in enumerate(rooms.tolist()):
        play(layer, room, counts)
    decoded = np.flatnonzero(~trace.prompt)
    warm = decoded[len(decoded) // 2 :]
    return Replay(
        name,
        round(float(rooms.mean())),
        _ratio(counts.hits[decoded], counts.picks[decoded]),
        _ratio(counts.hits[warm], counts.picks[warm]),
        _mean(counts.promotions[decoded], trace.layers),
        _mean(counts.promotions[warm], trace.layers),
        _mean((counts.picks - counts.hits)[decoded], trace.layers),
    )


def _beginning(
    trace: Trace, policy: Policy, layer: int, room: int
) -> tuple[Memory, NDArray[np.bool_]]:
    """Nothing known and nobody there; a fixed policy has its profile and whom that favours."""
    memory = policy.start(trace.experts)
    if not policy.fixed:
        return memory, np.zeros(trace.experts, np.bool_)
    profile = trace.picks[: len(trace.picks) // 2, layer].ravel()
    scores = np.bincount(profile[profile >= 0], minlength=trace.experts)
    memory = policy.seeded(memory, scores.astype(np.float64))
    return memory, policy.keep(memory, scores > 0, room)


def _count_hits(
    counts: _Counts, step: Step, resident: NDArray[np.bool_], picks: NDArray[np.int32]
) -> None:
    there = picks >= 0
    counts.hits[step.first : step.last] += np.count_nonzero(resident[picks] & there, axis=1)
    counts.picks[step.first : step.last] += np.count_nonzero(there, axis=1)


def _picked(picks: NDArray[np.int32], experts: int) -> NDArray[np.bool_]:
    """Which experts occur. [experts]"""
    mask = np.zeros(experts + 1, np.bool_)  # the last cell: picks of -1
    mask[picks] = True
    return mask[:-1]


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else 0.0


def _mean(values: NDArray[np.int64], layers: int) -> float:
    """Of a layer and token."""
    return float(values.sum() / (len(values) * layers)) if len(values) else 0.0
