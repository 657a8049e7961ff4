"""Two ends of one run, and the mean of their weights, from which it goes on.

Each end is trained from the same state until its learning rate is nothing, on other odds of the
same tasks. Weights that part late stay in one basin, so that their mean is a model too, one that
errs less (Wortsman et al., "Model soups", arXiv 2203.05482; what it was worth: docs/log.md).
"""

from pathlib import Path

from torch import Tensor

from hybrid.errors import CheckpointError
from nano.training.masters import Masters
from nano.training.optimiser import Optimiser
from nano.training.schedule import FIRST, FORK, SECOND
from nano.training.state import Run, load, save

FORK_STATE, FIRST_STATE = "fork.pt", "first.pt"


def turn(directory: Path, run: Run) -> Run:
    """What to go on with after a step: the run, its fork again, or the mean of both ends.

    Called once behind every step and before the state is saved, so that a run broken off here does
    the step again.
    """
    if run.step == FORK:
        save(directory, run, FORK_STATE)
    elif run.step == FIRST:
        save(directory, run, FIRST_STATE)
        run = _kept(directory, FORK_STATE)
        run.step = FIRST
    elif run.step == SECOND:
        run = mean(_kept(directory, FIRST_STATE), run)
    return run


def mean(first: Run, second: Run) -> Run:
    """The run between two: weights and moments; everything else is the second's."""
    one, other = first.optimiser, second.optimiser
    return Run(
        second.plan,
        second.shape,
        Masters.of(_mean(first.weights.master, second.weights.master)),
        Optimiser(
            other.heads,
            _mean(one.first, other.first),
            _mean(one.second, other.second),
            other.count,
        ),
        second.step,
    )


def _mean(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: (tensor + second[name]) / 2 for name, tensor in first.items()}


def _kept(directory: Path, name: str) -> Run:
    run = load(directory, name)
    if run is None:
        raise CheckpointError(
            f"{directory / name} is missing: the run began without it; begin anew"
        )
    return run
