"""What a step of the run looks like: its stage, its learning rate. Pure functions of the step."""

from dataclasses import dataclass

STAGES = (("echo", 0.0), ("grid", 0.035), ("all", 0.2), ("long", 0.82))  # from which share on
# Attention forms by steps rather than by tokens (an echo is learnt with half the tokens where steps
# are half as large); what comes after wants less noise.
BATCH = {"echo": 0.25, "grid": 0.25, "all": 0.5, "long": 1.0}  # of the tokens of a full step


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole run; the same plan, seed and machine give the same bits."""

    seed: int = 0
    steps: int = 2700
    tokens: int = 8192  # of a full step, about
    micro: int = 2048  # of a pass, padding included
    threads: int = 2  # each takes passes of its own
    rate: float = 3e-3
    warm_up: int = 30  # steps
    decay_from: float = 0.5  # share of the run; then linearly to nothing
    prompt_weight: float = 0.05  # of ids that the model only reads, in the drills
    clip: float = 1.0

    def stage(self, step: int) -> str:
        """Name the stage that a step belongs to (nano/data/mix.py)."""
        share = step / self.steps
        return next(name for name, start in reversed(STAGES) if share >= start)

    def batch(self, step: int) -> int:
        """Tokens of a step."""
        return int(self.tokens * BATCH[self.stage(step)])

    def left(self, step: int) -> int:
        """Tokens from a step on to the end."""
        return sum(map(self.batch, range(step, self.steps)))

    def factor(self, step: int) -> float:
        """Share of the learning rate at a step: warm-up, constant, decay."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        start = self.decay_from * self.steps
        return 1.0 if step < start else max(0.0, (self.steps - step) / (self.steps - start))
