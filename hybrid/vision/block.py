"""One block of the tower: attention over everything an item shows, then an MLP (spec §3.6).

    x [n, D] -> norm0 -> wqkv -> q, k turned -> attention within the item -> wo -> + x
             -> norm1 -> fc0 -> GELU (tanh) -> fc1 -> + x

Everything but the attention looks at one row at a time, so that rows can be taken in pieces:
`projected` before the attention, `finished` after it.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from hybrid.gpu_attention.weights import WeightReader
from hybrid.vision.positions import turned

NORM_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class Affine:
    """Weight and bias of a linear layer or of a LayerNorm."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def read(cls, reader: WeightReader, name: str) -> "Affine":
        """`name`.weight and `name`.bias of the checkpoint."""
        return cls(reader(f"{name}.weight"), reader(f"{name}.bias"))

    def to(self, dtype: torch.dtype) -> "Affine":
        """The same in another type; no copy where it is that type already."""
        return Affine(self.weight.to(dtype), self.bias.to(dtype))

    def empty_like(self, dtype: torch.dtype) -> "Affine":
        """Room for one of this size in another type."""
        empty = partial(torch.empty_like, dtype=dtype)
        return Affine(empty(self.weight), empty(self.bias))

    def take(self, other: "Affine") -> None:
        """Take over the numbers of another one, in the type that this one has."""
        self.weight.copy_(other.weight)
        self.bias.copy_(other.bias)

    def linear(self, x: Tensor) -> Tensor:
        """W x + b for every row."""
        return functional.linear(x, self.weight, self.bias)

    def norm(self, x: Tensor, eps: float = NORM_EPS) -> Tensor:
        """LayerNorm over the last dimension."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, eps)


@dataclass(frozen=True, slots=True)
class Block:
    """Weights of a block under the checkpoint's names."""

    heads: int
    norm0: Affine
    wqkv: Affine
    wo: Affine
    norm1: Affine
    fc0: Affine
    fc1: Affine

    @classmethod
    def read(cls, reader: WeightReader, index: int, heads: int) -> "Block":
        """Block `index` of the checkpoint."""
        prefix = f"vision_tower.encoder.blocks.{index}."
        names = ("norm0", "wqkv", "wo", "norm1", "mlp.fc0", "mlp.fc1")
        return cls(heads, *(Affine.read(reader, prefix + name) for name in names))

    @property
    def parts(self) -> tuple[Affine, ...]:
        """All of them, in the order of the fields."""
        return self.norm0, self.wqkv, self.wo, self.norm1, self.fc0, self.fc1

    def empty_like(self, dtype: torch.dtype) -> "Block":
        """Room for a block of this size in another type."""
        return Block(self.heads, *(part.empty_like(dtype) for part in self.parts))

    def projected(self, x: Tensor, rotation: Tensor) -> Tensor:
        """q, k and v of rows x [n, D] as [n, 3, heads, head_dim], q and k turned.

        `rotation` is complex [n, head_dim / 2].
        """
        qkv: Tensor = self.wqkv.linear(self.norm0.norm(x)).unflatten(-1, (3, self.heads, -1))
        qkv[:, :2] = turned(qkv[:, :2], rotation[:, None, None])
        return qkv

    def finished(self, x: Tensor, attended: Tensor) -> Tensor:
        """The block's output for rows x [n, D] and what they attended to, [n, D]."""
        x = x + self.wo.linear(attended)
        hidden = self.fc0.linear(self.norm1.norm(x))
        return x + self.fc1.linear(functional.gelu(hidden, approximate="tanh"))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention without a mask: q [heads, m, d] over k, v [heads, n, d] -> [heads, m, d].

    Scores are divided by sqrt(d); they are never held all at once.
    """
    return functional.scaled_dot_product_attention(q[None], k[None], v[None])[0]
