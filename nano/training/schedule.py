"""What a step of the run looks like: its stage, its learning rate. Pure functions of the step."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import accumulate

# Steps of each stage (nano/data/mix.py), and their tokens as a share of a full step. Skills that
# stand alone come in about a hundred small steps: attention forms by steps rather than by tokens.
TRUNK = (
    ("echo", 110, 0.25), ("lists", 140, 0.25), ("facts", 110, 0.25), ("grid", 180, 0.25),
    ("at", 100, 0.25), ("where", 140, 0.25), ("match", 180, 0.25), ("place", 120, 0.25),
    ("kinds", 110, 0.25), ("compare", 120, 0.25), ("mirror", 200, 0.25), ("mixed", 180, 0.25),
    ("all", 440, 0.5), ("tasks", 400, 0.5), ("again", 100, 0.5), ("rest", 60, 0.5),
    ("sorting", 80, 0.5), ("seeing", 160, 0.5), ("reckoning", 140, 0.5),
    ("looking", 120, 0.5), ("seeing", 120, 0.5), ("last", 60, 0.5), ("counting", 160, 0.5),
    ("ordering", 160, 0.5), ("summing", 120, 0.5), ("finding", 160, 0.5), ("spelling", 200, 0.5),
    ("watching", 180, 0.5), ("calling", 100, 0.5), ("finding", 100, 0.5), ("summing", 100, 0.5),
    ("watching", 140, 0.5), ("ordering", 120, 0.5), ("spelling", 260, 0.5), ("counting", 60, 0.5),
)  # fmt: skip
# It has two ends, each from where the trunk stops, and goes on from their mean (ends.py).
FIRST_END = (("spelling", 40, 0.5), ("finding", 40, 0.5), ("end", 340, 0.5), ("long", 260, 0.75))
SECOND_END = (
    ("spelling", 20, 0.5), ("settling", 60, 0.5), ("other end", 340, 0.5),
    ("other long", 260, 0.75),
)  # fmt: skip
FROM_MEAN = (("mending", 420, 0.5), ("tallying", 240, 0.5), ("mean", 440, 0.75))
STAGES = TRUNK + FIRST_END + SECOND_END + FROM_MEAN
# In these the rate stays where it is.
HELD = (
    "counting", "ordering", "summing", "finding", "spelling", "watching", "calling", "settling",
    "mending", "tallying",
)  # fmt: skip

FORK, FIRST, SECOND, LAST = accumulate(
    sum(steps for _, steps, _ in leg) for leg in (TRUNK, FIRST_END, SECOND_END, FROM_MEAN)
)  # steps after which the trunk, the ends and the run are over


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole run; the same plan, seed and machine give the same bits."""

    seed: int = 1
    steps: int = LAST  # fewer break off
    tokens: int = 8192  # of a full step, about
    micro: int = 2048  # of a pass, padding included
    threads: int = 2  # each takes passes of its own
    rate: float = 3e-3
    warm_up: int = 30  # steps
    hold: int = 1700  # steps at this rate; then it falls with the tokens left, but in HELD
    prompt_weight: float = 0.05  # of ids that the model only reads, in the drills
    clip: float = 1.0

    def stage(self, step: int) -> str:
        """Name the stage that a step belongs to (nano/data/mix.py)."""
        return _at(step)[0]

    def batch(self, step: int) -> int:
        """Tokens of a step."""
        return int(self.tokens * _at(step)[1])

    def number(self, step: int) -> int:
        """Which conversations are drawn: the second end has the draws of the first, other odds."""
        return step - FIRST + FORK if FIRST <= step < SECOND else step

    def left(self, step: int) -> int:
        """Tokens from a step on to the end of the run."""
        return _tokens(step, self.steps, self.tokens)

    def factor(self, step: int) -> float:
        """Share of the learning rate at a step: warm-up, constant, decay to each end."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        if step < self.hold:
            return 1.0
        end = next((end for end in (FIRST, SECOND) if step < end), LAST)
        falling = _tokens(self.hold, FIRST, self.tokens, skipped=HELD)
        return _tokens(step, end, self.tokens, skipped=HELD) / falling


def _tokens(begin: int, end: int, full: int, *, skipped: Collection[str] = ()) -> int:
    """Tokens of the steps from one to another, but in some stages; a full step has `full`."""
    at = found = 0
    for name, count, share in STAGES:
        steps = min(at + count, end) - max(at, begin)
        if name not in skipped:
            found += max(0, steps) * int(full * share)
        at += count
    return found


def _at(step: int) -> tuple[str, float]:
    """Stage and share of a step; behind the last one it goes on."""
    for name, count, share in STAGES:
        if step < count:
            return name, share
        step -= count
    return STAGES[-1][0], STAGES[-1][2]
