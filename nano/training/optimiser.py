"""Muon for matrices, AdamW for the rest.

AdamW takes embedding, head, router, norms, biases and position table.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nano.model.parameters import Parameters, is_trained
from nano.training.crew import Crew
from nano.training.masters import Masters
from nano.training.muon import update

MOMENTUM = 0.95
BETAS = (0.9, 0.97)
EPS = 1e-8
DECAY = 0.05  # of matrices, times the learning rate
BY_ADAM = ("embed_tokens.weight", "lm_head.weight", "mlp.gate.weight", "pos_emb.weight")


@dataclass(slots=True)
class Optimiser:
    """Moments of every weight; `first` is Muon's momentum too."""

    heads: int  # of the language model's attention
    first: Parameters
    second: Parameters
    count: int = 0

    @classmethod
    def of(cls, heads: int, master: Parameters) -> "Optimiser":
        """Start with empty moments."""
        first = {n: torch.zeros_like(w) for n, w in master.items() if is_trained(n)}
        second = {n: torch.zeros_like(w) for n, w in first.items() if not is_matrix(n, w)}
        return cls(heads, first, second)

    def step(self, weights: Masters, grads: Parameters, rate: float, crew: Crew) -> None:
        """Move the masters by the gradients of what the graph saw, and round anew.

        A weight without a gradient, of the tower where a step has no picture, stays where it is.
        """
        self.count += 1
        shares = _dealt(grads, crew.threads)
        crew.each(lambda n: self._move(weights, grads, shares[n], rate))

    @torch.no_grad()
    def _move(self, weights: Masters, grads: Parameters, names: list[str], rate: float) -> None:
        for name in names:
            grad, master, first = grads[name], weights.master[name], self.first[name]
            if is_matrix(name, master):
                master.mul_(1 - rate * DECAY)
                first.mul_(MOMENTUM).add_(grad)
                step = update(name, grad.add(first, alpha=MOMENTUM), self.heads)
                master.add_(step, alpha=-rate)
            else:
                master.add_(self._adam(name, grad), alpha=-rate)
            weights.refresh(name)

    def _adam(self, name: str, grad: Tensor) -> Tensor:
        first, second = self.first[name], self.second[name]
        first.lerp_(grad, 1 - BETAS[0])
        second.lerp_(grad.square(), 1 - BETAS[1])
        bias = [1 - beta**self.count for beta in BETAS]
        return first / bias[0] / (second / bias[1]).sqrt_().add_(EPS)


def is_matrix(name: str, values: Tensor) -> bool:
    """Tell what Muon moves."""
    return values.ndim >= 2 and not name.endswith(BY_ADAM)


def clip(grads: Parameters, most: float) -> float:
    """Scale all gradients so that their norm is at most `most`; returns the norm it was."""
    norm = math.sqrt(sum(float(grad.square().sum()) for grad in grads.values()))
    if norm > most:
        for grad in grads.values():
            grad.mul_(most / norm)
    return norm


def _dealt(grads: Parameters, shares: int) -> list[list[str]]:
    """Names in shares of about the same cost, the largest first."""
    made: list[list[str]] = [[] for _ in range(shares)]
    costs = [0.0] * shares
    for name in sorted(grads, key=lambda n: (-grads[n].numel(), n)):
        least = costs.index(min(costs))
        made[least].append(name)
        costs[least] += grads[name].numel()
    return made
