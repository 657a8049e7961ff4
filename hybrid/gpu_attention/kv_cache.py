"""The latent KV cache: what MLA remembers of a token, 576 numbers a layer for K2.5.

    pages[layer][page][place] = | c: kv_lora_rank, after kv_a_layernorm | k_rope: rotated |
    position p of the timeline lies in page table[p // 64], place p % 64

A single timeline of positions. Attention writes rows at a block's positions and reads the ones
before; how many of them mean anything is the caller's knowledge, not the cache's. Where a position
lies is looked up on the device, so that a captured step stays right as the timeline grows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid.config import TextConfig

PAGE = 64  # positions


@dataclass(frozen=True, slots=True)
class LatentCache:
    """All layers' rows in one tensor; memory is touched only as far as it is used."""

    pages: Tensor  # [layers, pages, PAGE, kv_lora_rank + qk_rope_head_dim]
    table: Tensor  # int32 [pages of the timeline]: which page holds positions 64 i … 64 i + 63
    in_order: bool  # the table is 0, 1, 2 …: rows of consecutive positions are one piece

    @classmethod
    def empty(
        cls, text: TextConfig, kv_tokens: int, device: torch.device, dtype: torch.dtype
    ) -> "LatentCache":
        """Reserve room for `kv_tokens` positions, in whole pages."""
        width, count = text.kv_lora_rank + text.qk_rope_head_dim, -(-kv_tokens // PAGE)
        shape = (text.num_hidden_layers, count, PAGE, width)
        pages = torch.empty(shape, device=device, dtype=dtype)
        table = torch.arange(count, device=device, dtype=torch.int32)
        return cls(pages, table, in_order=True)

    def of(self, layer: int) -> Tensor:
        """One layer's pages [pages, PAGE, width], a view."""
        return self.pages.select(0, layer)

    def slots(self, positions: Tensor) -> Tensor:
        """Rows of a layer's flat pages, int64 [tokens], for int32 positions [tokens]."""
        pages = self.table.index_select(0, positions // PAGE).to(torch.int64)
        return pages * PAGE + positions % PAGE

    def write(self, layer: int, slots: Tensor, latent: Tensor) -> None:
        """Store a block's latents [tokens, width] at its slots [tokens]."""
        self.of(layer).flatten(0, 1).index_copy_(0, slots, latent)

    def upto(self, layer: int, end: int) -> Tensor:
        """Latents of positions 0…end-1: [end, width]; a view where the pages are in order."""
        pages = self.of(layer)
        if not self.in_order:
            pages = pages.index_select(0, self.table.narrow(0, 0, -(-end // PAGE)))
        return pages.flatten(0, 1).narrow(0, 0, end)
