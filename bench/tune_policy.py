"""How the numbers of the default cache policy were chosen, and what they are worth.

    python bench/tune_policy.py TRACE [--quick]

Only the first half of the tokens is used to choose: a grid of policies is replayed over it, and the
hits of its second quarter count (in the first the cache fills). What is made best is the mean over
capacities of

    hits per pick - promotions per layer-step / 16

where promotions at 11 % of the experts are at most 0.40 a layer-step, as is required. A token makes
8 picks a layer; a promotion moves what a miss reads, but nobody waits for it, so it counts as half
a miss. Longer spans than 16 slots reach further back than the tokens used. As a cross-check the
choice is made on half of the layers and scored on the others. What weight of the short memory suits
RAM over a file is shown beside it. Last, the choice is played once over the whole trace beside its
peers, and the second half is what is claimed. Prints tables and, last, one JSON line.
"""

import argparse
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from environment import environment

from hybrid.cache.policy import DEFAULT, POLICIES, Policy
from hybrid.cache.simulate import Replay, replay, replay_bound, replay_ram
from hybrid.cache.trace_file import Trace, read_trace

SHARES = (0.023, 0.047, 0.11, 0.25)  # of the experts; more do not fill in half of a short trace
RAM_SHARES = (0.11, 0.25, 0.39, 0.5)
CLAIMED_SHARES = (0.023, 0.047, 0.11, 0.25, 0.39, 0.5)
PROMOTION = 1 / 16
BUSIEST = 0.11, 0.40  # at this share of the experts at most so many promotions
GRID = {
    "span": (4.0, 8.0, 16.0),
    "recency": (2.0, 4.0, 8.0, 16.0, 32.0),
    "short_decay": (0.6, 0.7, 0.8),
    "margin": (1.0, 1.25, 1.5, 1.75),
}
QUICK = {"span": (8.0, 16.0), "recency": (16.0,), "short_decay": (0.7,), "margin": (0.0, 1.5)}
RAM_RECENCIES = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True, slots=True)
class Score:
    """A policy over the capacities: hit rates and promotions after the cache has filled."""

    policy: Policy
    hits: tuple[float, ...]
    promotions: tuple[float, ...]

    @property
    def worth(self) -> float:
        """What is made best."""
        return float(np.mean(self.hits) - PROMOTION * np.mean(self.promotions))


def main() -> None:
    """Choose on the first half, claim on the second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("--quick", action="store_true", help="a coarse grid")
    args = parser.parse_args()
    trace = read_trace(args.trace)
    first = part(trace, tokens=len(trace.picks) // 2)
    grid = list(candidates(QUICK if args.quick else GRID))
    halves = [[score(first, policy, start) for policy in grid] for start in (0, 1)]
    scores = [mean(pair) for pair in zip(*halves, strict=True)]
    chosen = best(scores)
    print_scores(scores)
    crossed = cross_check(*halves)
    print_ram(first, chosen.policy)
    claims = claim(trace, chosen.policy)
    line = {
        "bench": "tune_policy",
        "trace": args.trace.name,
        "chosen": {name: getattr(chosen.policy, name) for name in GRID},
        "is_default": chosen.policy == DEFAULT,
        "worth": chosen.worth,
        "crossed": crossed,
        "claims": claims,
        "environment": environment(),
    }
    print(json.dumps(line))


def part(trace: Trace, tokens: int, first_layer: int = 0, every: int = 1) -> Trace:
    """The first tokens, and some of the layers."""
    picks = trace.picks[:tokens, first_layer::every]
    return replace(trace, picks=picks, prompt=trace.prompt[:tokens])


def slots(trace: Trace, shares: Iterable[float]) -> list[int]:
    """Shares of the experts as slots, rounded up."""
    return [int(np.ceil(share * trace.experts)) for share in shares]


def candidates(grid: dict[str, Sequence[float]]) -> Iterable[Policy]:
    """Every policy of the grid."""
    for values in itertools.product(*grid.values()):
        yield replace(DEFAULT, **dict(zip(grid, values, strict=True)))


def score(trace: Trace, policy: Policy, start: int) -> Score:
    """Play a policy in every second layer; `warm` is the second half of what is played."""
    layers = part(trace, len(trace.picks), start, 2)
    played = [replay(layers, policy, room) for room in slots(trace, SHARES)]
    return Score(
        policy,
        tuple(each.warm_hit_rate for each in played),
        tuple(each.warm_promotions_per_layer_step for each in played),
    )


def mean(scores: Sequence[Score]) -> Score:
    """Of one policy in two halves of the layers."""
    return Score(
        scores[0].policy,
        tuple(np.mean([each.hits for each in scores], axis=0).tolist()),
        tuple(np.mean([each.promotions for each in scores], axis=0).tolist()),
    )


def best(scores: Iterable[Score]) -> Score:
    """The best that keeps to the limit of promotions."""
    share, most = BUSIEST
    allowed = [each for each in scores if each.promotions[SHARES.index(share)] <= most]
    return max(allowed, key=lambda each: each.worth)


def cross_check(even: list[Score], odd: list[Score]) -> dict[str, float]:
    """What is lost on one half of the layers when the choice is made on the other."""
    lost = {}
    for name, here, there in (("even to odd", even, odd), ("odd to even", odd, even)):
        chosen = here.index(best(here))
        lost[name] = max(0.0, best(there).worth - there[chosen].worth)
        print(f"chosen on {name} layers: {lost[name]:.4f} behind the best of those")
    return lost


def claim(trace: Trace, policy: Policy) -> list[dict[str, object]]:
    """The choice, its peers and the bound over the whole trace."""
    print("\nwhole trace; warm: its second half")
    print(f"{'slots':>5}  {'policy':<12} {'hit':>6} {'warm':>6} {'promotions':>10} {'warm':>6}")
    lines: list[dict[str, object]] = []
    for room in slots(trace, CLAIMED_SHARES):
        played = [replay(trace, each, room) for each in (policy, POLICIES["lru"])]
        for each in (*played, replay_bound(trace, room)):
            print_replay(each)
            lines.append(asdict(each))
    return lines


def print_ram(trace: Trace, policy: Policy) -> None:
    """Hits of RAM over a file by the weight of the short memory, and those of LRU."""
    rooms = slots(trace, RAM_SHARES)
    print(f"\nRAM over a file, hits with {rooms} slots by recency")
    others = [replace(policy, recency=recency) for recency in RAM_RECENCIES]
    for each in (*others, POLICIES["lru"]):
        hits = [replay_ram(trace, each, room).warm_hit_rate for room in rooms]
        name = each.name if each.name == "lru" else f"{each.recency:g}"
        print(f"  {name:>4}  " + "  ".join(f"{hit:.3f}" for hit in hits))


def print_replay(played: Replay) -> None:
    """One row."""
    print(
        f"{played.slots:>5}  {played.policy:<12} {played.hit_rate:>6.3f} "
        f"{played.warm_hit_rate:>6.3f} {played.promotions_per_layer_step:>10.2f} "
        f"{played.warm_promotions_per_layer_step:>6.2f}"
    )


def print_scores(scores: list[Score], count: int = 12) -> None:
    """The best of the grid, allowed or not."""
    print("\nspan recency short_decay margin    worth   hits and promotions by capacity")
    for each in sorted(scores, key=lambda each: -each.worth)[:count]:
        policy = each.policy
        numbers = zip(each.hits, each.promotions, strict=True)
        print(
            f"{policy.span:>4g} {policy.recency:>7g} {policy.short_decay:>11g} "
            f"{policy.margin:>6g}   {each.worth:.4f}   "
            + "  ".join(f"{hit:.3f}/{promotions:.2f}" for hit, promotions in numbers)
        )


if __name__ == "__main__":
    main()
