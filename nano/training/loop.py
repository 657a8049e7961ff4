"""One step of training, and the loss of each task in it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from nano.data import mix
from nano.data.render import Renderer
from nano.model.batch import Row
from nano.model.forward import Graph
from nano.training.balance import SPEED, balance, skew
from nano.training.crew import Crew
from nano.training.optimiser import clip
from nano.training.passes import dealt
from nano.training.state import Run


@dataclass(slots=True)
class Report:
    """What one step showed."""

    stage: str
    tokens: int
    norm: float  # of the gradient, before clipping
    skew: float  # of the busiest expert of all layers
    losses: dict[str, float] = field(default_factory=dict)  # by task, of what the model says

    @property
    def loss(self) -> float:
        """Mean over the tasks."""
        return sum(self.losses.values()) / len(self.losses)


def step(run: Run, graph: Graph, renderer: Renderer, crew: Crew) -> Report:
    """Train on the next batch; the run is one step further."""
    plan = run.plan
    rows = rows_of(run, renderer)
    total = sum(weight for row in rows for weight in row.weight)
    passes = dealt(rows, plan.micro, crew.threads)
    share = crew.gradients(graph, run.weights.seen, passes, total)
    norm = clip(share.grads, plan.clip)
    factor = plan.factor(run.step)
    run.optimiser.step(run.weights, share.grads, plan.rate * factor, crew)
    balance(run.weights, share.loads, SPEED * factor)
    report = Report(
        stage=plan.stage(run.step),
        tokens=sum(len(row.ids) for row in rows),
        norm=norm,
        skew=max(map(skew, share.loads.values()), default=1.0),
        losses=_by_task(share.losses),
    )
    run.step += 1
    return report


def rows_of(run: Run, renderer: Renderer) -> list[Row]:
    """The conversations of the next step: as many as its tokens hold."""
    plan, made, left = run.plan, list[Row](), run.plan.batch(run.step)
    stage = plan.stage(run.step)
    reading = plan.prompt_weight if stage in mix.DRILLING else 0.0
    for sample in mix.stream(plan.seed, plan.number(run.step), stage):
        made.append(renderer.row(sample, reading))
        left -= len(made[-1].ids)
        if left <= 0:
            break
    return made


def _by_task(losses: Iterable[tuple[str, float, int]]) -> dict[str, float]:
    """Mean loss of each task over the ids that the model says itself."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for task, spent, count in losses:
        sums[task] += spent
        counts[task] += count
    return {task: sums[task] / counts[task] for task in sorted(sums)}
