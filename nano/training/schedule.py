"""What a step of the run looks like: its stage, its learning rate. Pure functions of the step."""

from dataclasses import dataclass

STAGES = (("copy", 0.0), ("all", 0.08), ("long", 0.7))  # from which share of the run on


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole run; the same plan, seed and machine give the same bits."""

    seed: int = 0
    steps: int = 1800
    tokens: int = 8192  # of a step, about
    micro: int = 2048  # of a pass, padding included
    threads: int = 2  # each takes passes of its own
    rate: float = 3e-3
    warm_up: int = 60  # steps
    decay_from: float = 0.6  # share of the run; then linearly to nothing
    prompt_weight: float = 0.05  # of ids that the model only reads, in the first stage
    clip: float = 1.0

    def stage(self, step: int) -> str:
        """Name the stage that a step belongs to (nano/data/mix.py)."""
        share = step / self.steps
        return next(name for name, start in reversed(STAGES) if share >= start)

    def factor(self, step: int) -> float:
        """Share of the learning rate at a step: warm-up, constant, decay."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        start = self.decay_from * self.steps
        return 1.0 if step < start else max(0.0, (self.steps - step) / (self.steps - start))
