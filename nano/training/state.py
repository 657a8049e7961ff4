"""A run on disk: everything that the next step depends on, written whole or not at all.

DIR/state.pt     masters, moments, step, plan        DIR/log.jsonl   a line a step
DIR/fork.pt      the same where the two ends part    DIR/first.pt    and where the first one stops
DIR/vocabulary.json                                  DIR/loss.png    the plot
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from hybrid.chat.vocabulary import Vocabulary
from hybrid.errors import CheckpointError
from hybrid.tiny.bpe import special_names
from hybrid.tiny.shape import TinyShape
from nano.training.masters import Masters
from nano.training.optimiser import Optimiser
from nano.training.schedule import Plan

STATE, VOCABULARY = "state.pt", "vocabulary.json"


@dataclass(slots=True)
class Run:
    """A training run between two steps."""

    plan: Plan
    shape: TinyShape
    weights: Masters
    optimiser: Optimiser
    step: int = 0  # done so far


def save(directory: Path, run: Run, name: str = STATE) -> None:
    """Write the state; an older one stays until the new one is complete."""
    optimiser = run.optimiser
    state = {
        "plan": asdict(run.plan),
        "shape": asdict(run.shape),
        "step": run.step,
        "master": run.weights.master,
        "first": optimiser.first,
        "second": optimiser.second,
        "count": optimiser.count,
    }
    partial = directory / f"{name}.partial"
    torch.save(state, partial)
    partial.replace(directory / name)


def load(directory: Path, name: str = STATE) -> Run | None:
    """Read the state, or None where there is none yet."""
    path = directory / name
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)
    shape, plan = TinyShape(**state["shape"]), Plan(**state["plan"])
    optimiser = Optimiser(
        shape.num_attention_heads, state["first"], state["second"], state["count"]
    )
    return Run(plan, shape, Masters.of(state["master"]), optimiser, state["step"])


def save_vocabulary(directory: Path, vocabulary: Vocabulary) -> None:
    """Write the ordinary tokens in hexadecimal, by rank."""
    text = json.dumps([token.hex() for token in vocabulary.base])
    (directory / VOCABULARY).write_text(text + "\n")


def load_vocabulary(directory: Path) -> Vocabulary:
    """Read them back; CheckpointError where no run has begun."""
    path = directory / VOCABULARY
    if not path.exists():
        raise CheckpointError(
            f"{path} is missing; train first: python -m nano.train --out {directory}"
        )
    base = tuple(bytes.fromhex(token) for token in json.loads(path.read_text()))
    return Vocabulary(base, special_names(len(base)))
