"""Multi-head latent attention: keys and values are a projection of one small latent a token.

    q = q_b(norm(q_a h))                     per head: q_nope, q_rope (rotated)
    c, k_rope = norm(first), rotated(rest) of kv_a h          one row of the cache
    k_nope, v = kv_b c                       per head, never stored

Two equal forms of the same attention (DeepSeek-V2, arXiv 2405.04434, §2.1; spec §3.2):

    absorbed   moves kv_b to the query and output side and attends to the rows themselves; it reads
               the cache once whatever the number of heads, so it is the form for few tokens
    expanded   rebuilds keys and values once a block and attends to those; 3.4 times less
               arithmetic a pair of positions, so it is the form for a block of a prompt
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hybrid.config import TextConfig
from hybrid.gpu_attention.kv_cache import LatentCache
from hybrid.gpu_attention.layers import rms_norm, rotate

EXPANDED_FROM = 128  # tokens in a block; the arithmetic of the two forms crosses near 170 at K2.5
SCORE_BYTES = 256 << 20  # upper bound of one block of attention scores


@dataclass(frozen=True, slots=True)
class MlaWeights:
    """One layer's attention weights, [out, in], in the activation type."""

    q_a_proj: Tensor
    q_a_layernorm: Tensor
    q_b_proj: Tensor
    kv_a_proj_with_mqa: Tensor
    kv_a_layernorm: Tensor
    kv_b_proj: Tensor
    o_proj: Tensor


@dataclass(frozen=True, slots=True)
class Mla:
    """The attention of one layer."""

    layer: int
    weights: MlaWeights
    text: TextConfig
    softmax_scale: float

    def __call__(
        self, hidden: Tensor, cache: LatentCache, start: int, table: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Attend from hidden [tokens, hidden_size] to all positions up to each token's own.

        table: cos and sin of the block's positions, [tokens, qk_rope_head_dim / 2] each.
        """
        q_nope, q_rope = self._queries(hidden, table)
        cache.write(self.layer, start, self._latents(hidden, table))
        rows = cache.upto(self.layer, start + hidden.shape[0])
        form = self._expanded if hidden.shape[0] >= EXPANDED_FROM else self._absorbed
        heads = form(q_nope, q_rope, rows, start)  # [heads, tokens, v_head_dim]
        return functional.linear(heads.transpose(0, 1).flatten(1), self.weights.o_proj)

    def _queries(self, hidden: Tensor, table: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """q_nope and rotated q_rope, [heads, tokens, dim] each."""
        w, text = self.weights, self.text
        latent = functional.linear(hidden, w.q_a_proj)
        latent = rms_norm(latent, w.q_a_layernorm, text.latent_norm_eps)
        q = functional.linear(latent, w.q_b_proj)
        q = q.unflatten(-1, (text.num_attention_heads, -1)).transpose(0, 1)
        q_nope, q_rope = q.split((text.qk_nope_head_dim, text.qk_rope_head_dim), dim=-1)
        return q_nope, rotate(q_rope, *table)

    def _latents(self, hidden: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """The block's cache rows: [tokens, kv_lora_rank + qk_rope_head_dim]."""
        w, text = self.weights, self.text
        latent = functional.linear(hidden, w.kv_a_proj_with_mqa)
        c, k_rope = latent.split((text.kv_lora_rank, text.qk_rope_head_dim), dim=-1)
        c = rms_norm(c, w.kv_a_layernorm, text.latent_norm_eps)
        return torch.cat((c, rotate(k_rope, *table)), dim=-1)

    def _absorbed(self, q_nope: Tensor, q_rope: Tensor, rows: Tensor, start: int) -> Tensor:
        up_k, up_v = self._kv_b()
        outputs = []
        for heads in self._head_blocks(q_nope, rows):
            query = torch.cat((q_nope[heads] @ up_k[heads], q_rope[heads]), dim=-1)
            attention = self._softmax(query @ rows.T, start).to(rows.dtype)
            mixed = attention @ rows[:, : self.text.kv_lora_rank]  # [heads, tokens, kv_lora_rank]
            outputs.append(mixed @ up_v[heads].transpose(1, 2))
        return torch.cat(outputs)

    def _expanded(self, q_nope: Tensor, q_rope: Tensor, rows: Tensor, start: int) -> Tensor:
        up_k, up_v = self._kv_b()
        c, k_rope = rows.split((self.text.kv_lora_rank, self.text.qk_rope_head_dim), dim=-1)
        outputs = []
        for heads in self._head_blocks(q_nope, rows):
            k_nope = c @ up_k[heads].transpose(1, 2)  # [heads, positions, qk_nope_head_dim]
            scores = q_nope[heads] @ k_nope.transpose(1, 2) + q_rope[heads] @ k_rope.T
            attention = self._softmax(scores, start).to(rows.dtype)
            outputs.append(attention @ (c @ up_v[heads].transpose(1, 2)))
        return torch.cat(outputs)

    def _softmax(self, scores: Tensor, start: int) -> Tensor:
        """Causal softmax in fp32 of [heads, tokens, positions]."""
        scores = scores.float() * self.softmax_scale
        tokens, positions = scores.shape[-2:]
        if tokens > 1:
            own = torch.arange(start, start + tokens, device=scores.device)
            later = torch.arange(positions, device=scores.device) > own[:, None]
            scores = scores.masked_fill(later, float("-inf"))
        return torch.softmax(scores, dim=-1)

    def _kv_b(self) -> tuple[Tensor, Tensor]:
        """W_UK and W_UV: kv_b_proj's rows of each head, [heads, dim, kv_lora_rank] each."""
        text = self.text
        per_head = self.weights.kv_b_proj.unflatten(0, (text.num_attention_heads, -1))
        up_k, up_v = per_head.split((text.qk_nope_head_dim, text.v_head_dim), dim=1)
        return up_k, up_v

    def _head_blocks(self, q: Tensor, rows: Tensor) -> Iterator[slice]:
        """Slices of heads whose scores together stay within SCORE_BYTES."""
        heads, tokens = q.shape[:2]
        step = max(1, SCORE_BYTES // (4 * tokens * rows.shape[0]))
        return (slice(at, at + step) for at in range(0, heads, step))
