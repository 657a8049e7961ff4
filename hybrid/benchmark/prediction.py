"""What the plan says of a case: the number beside the measured one, and for a token its parts.

The plan is asked with the options that the model was loaded with, and only where this machine has
been calibrated: a prediction from what parts promise explains nothing. Random tokens are taken to
choose their experts at random too, and a model's own as those of a trained model do.

Two guesses make a prediction: how often an expert is in memory, and how long things take. Where a
token was slower or faster than said, `at_hits` tells which of them was wrong.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hybrid.benchmark.cases import Case
from hybrid.benchmark.sample import Asked
from hybrid.engine import Engine
from hybrid.hardware import Hardware

if TYPE_CHECKING:
    from hybrid.placement import Plan

ROUTING = {"random": "uniform", "greedy": "local"}  # of a plan, by what is fed


@dataclass(frozen=True, slots=True)
class Predicted:
    """Tokens per second; of generated ones also more."""

    tokens_per_s: float
    seconds: dict[str, float] = field(default_factory=dict)  # of a token, by part
    at_hits: float | None = None  # tokens per second, with the hits that were measured


Shares = Mapping[str, float]  # of the uses of experts, by tier, as measured
Predict = Callable[[Engine, Case, Shares], Predicted | None]


def predictor(machine: Hardware, asked: Asked, hits: Shares | None = None) -> Predict:
    """Predict cases on engines that are all loaded alike; None where nothing was measured here.

    `hits`: how often the experts of generated tokens are in which tier, where that is known better
    than a plan can, such as from a replay of the model's own routing.
    """
    made: list[Plan] = []

    def predict(engine: Engine, case: Case, shares: Shares) -> Predicted | None:
        if not machine.rates.measured:
            return None
        if not made:
            made.append(_plan(engine, machine, asked))
        return predicted(made[0], case, shares, hits)

    return predict


def predicted(plan: "Plan", case: Case, shares: Shares, hits: Shares | None = None) -> Predicted:
    """A token in the middle of those generated, or a prompt less what is there already."""
    if case.generated:
        from hybrid.placement.hits import Hits

        middle = case.depth + case.generated // 2
        seconds = plan.decode_parts(middle, Hits(**hits) if hits else None)
        found = plan.decode_parts(middle, Hits(**shares) if shares else None)
        return Predicted(1 / sum(seconds.values()), seconds, 1 / sum(found.values()))
    whole = plan.prefill_seconds(case.positions)
    if case.depth:
        head = plan.decode_parts()["head"]  # is in both, and is computed
        whole += head - plan.prefill_seconds(case.depth)
    return Predicted(case.prompt / whole)


def _plan(engine: Engine, machine: Hardware, asked: Asked) -> "Plan":
    from hybrid.placement import PlanOptions, plan

    options = engine.options
    return plan(
        engine.config,
        machine,
        PlanOptions(
            context=engine.kv_tokens,
            vision=options.vision,
            device=options.device,
            backbone_weights=options.backbone_weights,
            ram_budget=options.ram_budget,
            vram_budget=options.vram_budget,
            threads=options.threads,
            routing=ROUTING[asked.feed],
        ),
    )
