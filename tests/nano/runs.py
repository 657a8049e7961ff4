"""Training runs small enough for a test, and whether two of them are the same."""

import torch

from nano.model.parameters import initial
from nano.model.shape import model_config
from nano.training.masters import Masters
from nano.training.optimiser import Optimiser
from nano.training.state import Run


def fresh(shape, vocabulary, plan, step=0):
    master = initial(model_config(shape, vocabulary), vocabulary, plan.seed)
    optimiser = Optimiser.of(shape.num_attention_heads, master)
    return Run(plan, shape, Masters.of(master), optimiser, step)


def same_weights(one, other):
    return _same(one.weights.master, other.weights.master)


def same_bits(one, other):
    """Weights, what the graph sees of them, moments and their count."""
    return (
        same_weights(one, other)
        and _same(one.weights.seen, other.weights.seen)
        and _same(one.optimiser.first, other.optimiser.first)
        and _same(one.optimiser.second, other.optimiser.second)
        and one.optimiser.count == other.optimiser.count
    )


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], t) for n, t in other.items())
