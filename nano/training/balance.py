"""Load balancing without an auxiliary loss (DeepSeek-V3, arXiv 2412.19437, §2.1.2).

After each step the bias of an expert that was chosen less often than the mean goes up, of one
chosen more often down, by a fixed amount. It moves choices only: weights are the unbiased scores.
"""

import torch
from torch import Tensor

from nano.model.parameters import BIAS
from nano.training.masters import Masters

SPEED = 0.004


@torch.no_grad()
def balance(weights: Masters, loads: dict[int, Tensor], speed: float = SPEED) -> None:
    """Move the biases of all MoE layers by what their experts were chosen, [experts] each."""
    for layer, load in loads.items():
        counts = load.float()
        name = f"model.layers.{layer}.{BIAS}"
        weights.master[name].add_(speed * torch.sign(counts.mean() - counts))
        weights.refresh(name)


def skew(load: Tensor) -> float:
    """How often the busiest expert was chosen, in means: 1.0 is even."""
    return float(load.max() / load.float().mean())
