"""The latent KV cache: what MLA remembers of a token, 576 numbers a layer for K2.5.

    rows[layer][position] = | c: kv_lora_rank, after kv_a_layernorm | k_rope: rotated |

A single timeline of positions. Attention writes rows from a block's start on and reads the ones
before; how many of them mean anything is the caller's knowledge, not the cache's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid.config import TextConfig


@dataclass(frozen=True, slots=True)
class LatentCache:
    """All layers' rows in one tensor; memory is touched only as far as it is used."""

    rows: Tensor  # [layers, kv_tokens, kv_lora_rank + qk_rope_head_dim]

    @classmethod
    def empty(
        cls, text: TextConfig, kv_tokens: int, device: torch.device, dtype: torch.dtype
    ) -> "LatentCache":
        """Reserve room for `kv_tokens` positions."""
        width = text.kv_lora_rank + text.qk_rope_head_dim
        shape = (text.num_hidden_layers, kv_tokens, width)
        return cls(torch.empty(shape, device=device, dtype=dtype))

    def write(self, layer: int, start: int, latent: Tensor) -> None:
        """Store a block's latents [tokens, width] at positions from `start` on."""
        self.rows[layer].narrow(0, start, latent.shape[0]).copy_(latent)

    def upto(self, layer: int, end: int) -> Tensor:
        """Latents of positions 0…end-1: [end, width], a view."""
        return self.rows[layer].narrow(0, 0, end)
