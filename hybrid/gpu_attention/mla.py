"""Multi-head latent attention: keys and values are a projection of one small latent a token.

    q = q_b(norm(q_a h))                     per head: q_nope, q_rope (rotated)
    c, k_rope = norm(first), rotated(rest) of kv_a h          one row of the cache
    k_nope, v = kv_b c                       per head, never stored

Two equal forms of the same attention (DeepSeek-V2, arXiv 2405.04434, §2.1; spec §3.2):

    absorbed   moves kv_b to the query and output side and attends to the rows themselves; it reads
               the cache once whatever the number of heads, so it is the form for few tokens
    expanded   rebuilds keys and values once a block and attends to those; 3.4 times less
               arithmetic a pair of positions, so it is the form for a block of a prompt

A decode step of at most FEW tokens takes the absorbed form through `ops.mla_decode`: it asks the
host for nothing, so that it can be captured.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid.config import TextConfig
from hybrid.gpu_attention.codes import Int8Weight, Weight, decode
from hybrid.gpu_attention.kv_cache import LatentCache
from hybrid.gpu_attention.layers import rms_norm, rotate
from hybrid.gpu_attention.ops import FEW, linear, mla_decode, norm_linear, per_head
from hybrid.gpu_attention.weights import WeightReader

EXPANDED_FROM = 128  # tokens in a block; the arithmetic of the two forms crosses near 170 at K2.5
SCORE_BYTES = 256 << 20  # upper bound of one block of attention scores


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block lies in the timeline, on the device: the same for every layer of a step."""

    start: Tensor  # int32 [1], position of the first token
    slots: Tensor  # int64 [tokens], where the cache keeps their rows (LatentCache.slots)
    cos: Tensor  # [tokens, qk_rope_head_dim / 2], of their positions
    sin: Tensor
    first: int | None = None  # `start` on the host; None where only the device knows: FEW tokens


@dataclass(frozen=True, slots=True)
class MlaWeights:
    """One layer's attention weights and the norm before them; norms in the activation type."""

    input_layernorm: Tensor
    q_kv_a: Weight  # q_a_proj above kv_a_proj_with_mqa: [q_lora_rank + width, hidden_size]
    q_a_layernorm: Tensor
    q_b_proj: Weight
    kv_a_layernorm: Tensor
    up_k: Weight  # of kv_b_proj, each head's W_UK transposed: [heads, kv_lora_rank, nope]
    up_v: Weight  # of kv_b_proj, each head's W_UV: [heads, v_head_dim, kv_lora_rank]
    o_proj: Weight

    @classmethod
    def read(cls, text: TextConfig, reader: WeightReader, layer: int) -> "MlaWeights":
        """Read one layer's, int8 where the reader codes matrices."""
        prefix = f"model.layers.{layer}.self_attn"
        kv_b = reader(f"{prefix}.kv_b_proj.weight").unflatten(0, (text.num_attention_heads, -1))
        up_k, up_v = kv_b.split((text.qk_nope_head_dim, text.v_head_dim), dim=1)
        return cls(
            input_layernorm=reader(f"model.layers.{layer}.input_layernorm.weight"),
            q_kv_a=reader.matrix(
                f"{prefix}.q_a_proj.weight", f"{prefix}.kv_a_proj_with_mqa.weight"
            ),
            q_a_layernorm=reader(f"{prefix}.q_a_layernorm.weight"),
            q_b_proj=reader.matrix(f"{prefix}.q_b_proj.weight"),
            kv_a_layernorm=reader(f"{prefix}.kv_a_layernorm.weight"),
            up_k=reader.coded(up_k.transpose(1, 2)),
            up_v=reader.coded(up_v),
            o_proj=reader.matrix(f"{prefix}.o_proj.weight"),
        )


@dataclass(frozen=True, slots=True)
class Mla:
    """The attention of one layer, with the norm before it."""

    layer: int
    weights: MlaWeights
    text: TextConfig
    softmax_scale: float

    def __call__(self, x: Tensor, cache: LatentCache, place: Place) -> Tensor:
        """MLA(RMSNorm(x)) for the residual stream x [tokens, hidden_size]; writes the cache.

        Each token attends to all positions up to its own.
        """
        w, text = self.weights, self.text
        projected = norm_linear(x, w.input_layernorm, text.rms_norm_eps, w.q_kv_a)
        latent, row = projected.split((text.q_lora_rank, self._width), dim=-1)
        cache.write(self.layer, place.slots, self._row(row, place))
        q = norm_linear(latent, w.q_a_layernorm, text.latent_norm_eps, w.q_b_proj)
        q_nope, q_rope = q.unflatten(-1, (text.num_attention_heads, -1)).split(
            (text.qk_nope_head_dim, text.qk_rope_head_dim), dim=-1
        )  # [tokens, heads, dim] each
        q_rope = rotate(q_rope, place.cos.unsqueeze(1), place.sin.unsqueeze(1))
        heads = self._attend(q_nope, q_rope, cache, place)  # [tokens, heads, v_head_dim]
        return linear(heads.flatten(1), w.o_proj)

    @property
    def _width(self) -> int:
        return self.text.kv_lora_rank + self.text.qk_rope_head_dim

    def _row(self, row: Tensor, place: Place) -> Tensor:
        """The block's cache rows: [tokens, kv_lora_rank + qk_rope_head_dim]."""
        c, k_rope = row.split((self.text.kv_lora_rank, self.text.qk_rope_head_dim), dim=-1)
        c = rms_norm(c, self.weights.kv_a_layernorm, self.text.latent_norm_eps)
        return torch.cat((c, rotate(k_rope, place.cos, place.sin)), dim=-1)

    def _attend(self, q_nope: Tensor, q_rope: Tensor, cache: LatentCache, place: Place) -> Tensor:
        if place.first is None or q_nope.shape[0] <= FEW:
            query = self._absorbed_query(q_nope, q_rope)
            pages, rank = cache.of(self.layer), self.text.kv_lora_rank
            mixed = mla_decode(query, pages, cache.table, place.start, self.softmax_scale, rank)
            return per_head(mixed, self.weights.up_v)
        rows = cache.upto(self.layer, place.first + q_nope.shape[0])
        form = self._expanded if q_nope.shape[0] >= EXPANDED_FROM else self._absorbed
        return form(q_nope, q_rope, rows, place.first)

    def _absorbed_query(self, q_nope: Tensor, q_rope: Tensor) -> Tensor:
        """What meets the rows of the cache: [tokens, heads, kv_lora_rank + qk_rope_head_dim]."""
        return torch.cat((per_head(q_nope, self.weights.up_k), q_rope), dim=-1)

    def _absorbed(self, q_nope: Tensor, q_rope: Tensor, rows: Tensor, start: int) -> Tensor:
        query = self._absorbed_query(q_nope, q_rope).transpose(0, 1)  # [heads, tokens, width]
        values = rows.narrow(1, 0, self.text.kv_lora_rank)
        mixed = []
        for first, count in self._head_blocks(query, rows):
            scores = query.narrow(0, first, count) @ rows.T
            mixed.append(self._softmax(scores, start).to(rows.dtype) @ values)
        return per_head(torch.cat(mixed).transpose(0, 1), self.weights.up_v)

    def _expanded(self, q_nope: Tensor, q_rope: Tensor, rows: Tensor, start: int) -> Tensor:
        q_nope, q_rope = q_nope.transpose(0, 1), q_rope.transpose(0, 1)
        up_k, up_v = _dense(self.weights.up_k, rows.dtype), _dense(self.weights.up_v, rows.dtype)
        c, k_rope = rows.split((self.text.kv_lora_rank, self.text.qk_rope_head_dim), dim=-1)
        outputs = []
        for first, count in self._head_blocks(q_nope, rows):
            k_nope = c @ up_k.narrow(0, first, count)  # [heads, positions, qk_nope_head_dim]
            scores = q_nope.narrow(0, first, count) @ k_nope.transpose(1, 2)
            scores = scores + q_rope.narrow(0, first, count) @ k_rope.T
            values = c @ up_v.narrow(0, first, count).transpose(1, 2)
            outputs.append(self._softmax(scores, start).to(rows.dtype) @ values)
        return torch.cat(outputs).transpose(0, 1)

    def _softmax(self, scores: Tensor, start: int) -> Tensor:
        """Causal softmax in fp32 of [heads, tokens, positions]."""
        scores = scores.float() * self.softmax_scale
        tokens, positions = scores.shape[-2:]
        own = torch.arange(start, start + tokens, device=scores.device).unsqueeze(1)
        later = torch.arange(positions, device=scores.device) > own
        return torch.softmax(scores.masked_fill(later, float("-inf")), dim=-1)

    def _head_blocks(self, q: Tensor, rows: Tensor) -> Iterator[tuple[int, int]]:
        """First head and count of blocks whose scores together stay within SCORE_BYTES."""
        heads, tokens = q.shape[:2]
        step = max(1, SCORE_BYTES // (4 * tokens * rows.shape[0]))
        return ((at, min(step, heads - at)) for at in range(0, heads, step))


def _dense(weight: Weight, dtype: torch.dtype) -> Tensor:
    return decode(weight, dtype) if isinstance(weight, Int8Weight) else weight
