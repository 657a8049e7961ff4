"""From the tower's patches to rows of the language model: four patches become one token.

[t, h, w, D] -> mean over t -> groups of 2 x 2 -> LayerNorm of each -> side by side [tokens, 4D]
-> linear -> GELU (erf) -> linear -> [tokens, hidden_size]                          (spec §3.6)
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hybrid.gpu_attention.weights import WeightReader
from hybrid.vision.block import Affine
from hybrid.vision.media import MERGE


def merged(x: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Patches [t * h * w, D] as groups [tokens, 4, D], averaged over the frames.

    Tokens are in raster order; a group is its upper two patches, then its lower two.
    """
    t, h, w = grid
    still = x.unflatten(0, (t, h, w)).mean(0)
    groups: Tensor = still.unflatten(1, (w // MERGE, MERGE)).unflatten(0, (h // MERGE, MERGE))
    return groups.transpose(1, 2).flatten(0, 1).flatten(1, 2)


@dataclass(frozen=True, slots=True)
class Projector:
    """Weights of `mm_projector` under its own names."""

    eps: float
    pre_norm: Affine
    proj_0: Affine
    proj_2: Affine

    @classmethod
    def read(cls, reader: WeightReader, eps: float) -> "Projector":
        """The checkpoint's projector; eps is that of its LayerNorm."""
        names = ("pre_norm", "proj.0", "proj.2")
        return cls(eps, *(Affine.read(reader, f"mm_projector.{name}") for name in names))

    def to(self, dtype: torch.dtype) -> "Projector":
        """The same in another type."""
        parts = (self.pre_norm, self.proj_0, self.proj_2)
        return Projector(self.eps, *(part.to(dtype) for part in parts))

    def projected(self, groups: Tensor) -> Tensor:
        """Groups [tokens, 4, D] as rows [tokens, hidden_size]."""
        hidden = self.proj_0.linear(self.pre_norm.norm(groups, self.eps).flatten(1))
        return self.proj_2.linear(functional.gelu(hidden))
