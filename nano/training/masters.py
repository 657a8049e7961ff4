"""Two copies of every weight: the optimiser's, and the rounded one that the graph computes with.

    master   float32                      moved by the optimiser
    seen     INT4 or bf16 in float32      what the graph takes; its gradient is the master's

That is quantisation-aware training with a straight-through estimate, and rounding costs one pass a
step, not one a use. What is exported is `seen`.
"""

from dataclasses import dataclass

import torch

from nano.model.parameters import Parameters, is_expert, is_trained
from nano.model.rounding import bf16, int4


@dataclass(frozen=True, slots=True)
class Masters:
    """All weights, twice."""

    master: Parameters
    seen: Parameters

    @classmethod
    def of(cls, master: Parameters) -> "Masters":
        """Take weights over and round them."""
        return cls(master, {name: rounded(name, values) for name, values in master.items()})

    def refresh(self, name: str) -> None:
        """Round one master anew."""
        self.seen[name].copy_(rounded(name, self.master[name]))


def rounded(name: str, values: torch.Tensor) -> torch.Tensor:
    """What the checkpoint holds of a tensor; the router's bias stays float32, as published."""
    if is_expert(name):
        return int4(values)
    return bf16(values) if is_trained(name) else values.clone()
