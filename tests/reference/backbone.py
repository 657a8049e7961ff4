"""The backbone in numpy float64, slow and obvious: spec §3 line by line, not a line of hybrid's.

No cache object: keys come as rows [positions, kv_lora_rank + qk_rope_head_dim], either `latents` of
the whole sequence or the rows that an implementation really stored (rounded to its cache's type).
Attention is the expanded form, one head and one token at a time.

A planted fault is a subclass that overrides one small method.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybrid.config import TextConfig

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Routed:
    """One layer's routing of a block."""

    hidden: F64  # [tokens, hidden_size]
    scores: F64  # [tokens, n_routed_experts], sigmoid
    selection: F64  # scores + bias
    expert_ids: NDArray[np.int64]  # [tokens, k], best first
    weights: F64  # [tokens, k]


class Reference:
    """Verbs of `hybrid.backbone.Backbone` on float64 arrays; `tensors` by published names."""

    def __init__(self, text: TextConfig, tensors: Mapping[str, F64]) -> None:
        self.text = text
        self.tensors = {name: np.asarray(value, np.float64) for name, value in tensors.items()}

    # spec §3.1

    def embed(self, token_ids: Sequence[int]) -> F64:
        return self.tensors["model.embed_tokens.weight"][list(token_ids)]

    def rms_norm(self, x: F64, name: str, eps: float) -> F64:
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + eps) * self.tensors[f"{name}.weight"]

    def input_norm(self, layer: int, x: F64) -> F64:
        return self.rms_norm(x, f"model.layers.{layer}.input_layernorm", self.text.rms_norm_eps)

    def post_norm(self, layer: int, x: F64) -> F64:
        name = f"model.layers.{layer}.post_attention_layernorm"
        return self.rms_norm(x, name, self.text.rms_norm_eps)

    def linear(self, x: F64, name: str) -> F64:
        return x @ self.tensors[f"{name}.weight"].T

    def logits(self, x: F64) -> F64:
        return self.linear(self.rms_norm(x, "model.norm", self.text.rms_norm_eps), "lm_head")

    # spec §3.2

    def attend(self, layer: int, x: F64, start: int, rows: F64) -> F64:
        """x + MLA; rows of positions 0 … start + tokens - 1."""
        text, attn = self.text, f"model.layers.{layer}.self_attn"
        latent = text.kv_lora_rank
        q = self.queries(layer, x, start)  # [tokens, heads, nope + rope]
        kv = self.linear(rows[:, :latent], f"{attn}.kv_b_proj")
        kv = kv.reshape(len(rows), text.num_attention_heads, -1)
        out = np.empty((len(x), text.num_attention_heads, text.v_head_dim))
        for token in range(len(x)):
            seen = self.visible(start + token)
            for head in range(text.num_attention_heads):
                k_nope = kv[:seen, head, : text.qk_nope_head_dim]
                k = np.concatenate([k_nope, rows[:seen, latent:]], axis=1)
                weights = softmax(k @ q[token, head] * self.softmax_scale())
                out[token, head] = weights @ kv[:seen, head, text.qk_nope_head_dim :]
        return x + self.linear(out.reshape(len(x), -1), f"{attn}.o_proj")

    def queries(self, layer: int, x: F64, start: int) -> F64:
        text, attn = self.text, f"model.layers.{layer}.self_attn"
        q_a = self.linear(self.input_norm(layer, x), f"{attn}.q_a_proj")
        q_a = self.rms_norm(q_a, f"{attn}.q_a_layernorm", self.latent_eps())
        q = self.linear(q_a, f"{attn}.q_b_proj").reshape(len(x), text.num_attention_heads, -1)
        nope, rope = np.split(q, [text.qk_nope_head_dim], axis=-1)
        rope = np.stack([self.rotate(r, start + t) for t, r in enumerate(rope)])
        return np.concatenate([nope, rope], axis=-1)

    def latents(self, layer: int, x: F64, start: int) -> F64:
        """Cache rows of a block, unrounded: c after its norm, then rotated k_rope."""
        text, attn = self.text, f"model.layers.{layer}.self_attn"
        kv_a = self.linear(self.input_norm(layer, x), f"{attn}.kv_a_proj_with_mqa")
        c, k_rope = np.split(kv_a, [text.kv_lora_rank], axis=-1)
        c = self.rms_norm(c, f"{attn}.kv_a_layernorm", self.latent_eps())
        k_rope = np.stack([self.rotate(r, start + t) for t, r in enumerate(k_rope)])
        return np.concatenate([c, k_rope], axis=-1)

    def latent_eps(self) -> float:
        return self.text.latent_norm_eps

    def visible(self, position: int) -> int:
        """How many positions a token at `position` sees, itself included."""
        return position + 1

    def rotate(self, vectors: F64, position: int) -> F64:
        """Adjacent pairs of the last dimension, by position * inv_freq rounded to float32."""
        angle = (np.float32(position) * self.inv_freq().astype(np.float32)).astype(np.float64)
        ratio = self.table_scale()
        cos, sin = np.cos(angle) * ratio, np.sin(angle) * ratio
        even, odd = vectors[..., 0::2], vectors[..., 1::2]
        turned = np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
        return turned.reshape(vectors.shape)

    def mscale(self, weight: float) -> float:
        yarn = self.text.rope_scaling
        if yarn is None or yarn.factor <= 1:
            return 1.0
        return 0.1 * weight * math.log(yarn.factor) + 1

    def softmax_scale(self) -> float:
        text, yarn = self.text, self.text.rope_scaling
        m = self.mscale(yarn.mscale_all_dim) if yarn else 1.0
        return (text.qk_nope_head_dim + text.qk_rope_head_dim) ** -0.5 * m * m

    def table_scale(self) -> float:
        yarn = self.text.rope_scaling
        return self.mscale(yarn.mscale) / self.mscale(yarn.mscale_all_dim) if yarn else 1.0

    # spec §3.3

    def inv_freq(self) -> F64:
        text, yarn = self.text, self.text.rope_scaling
        dim, base = text.qk_rope_head_dim, text.rope_theta
        extra = np.array([base ** (-2 * i / dim) for i in range(dim // 2)])
        if yarn is None:
            return extra

        def correction(turns: float) -> float:
            length = yarn.original_max_position_embeddings
            return dim * math.log(length / (2 * math.pi * turns)) / (2 * math.log(base))

        low = max(math.floor(correction(yarn.beta_fast)), 0)
        high = min(math.ceil(correction(yarn.beta_slow)), dim - 1)
        ramp = np.clip((np.arange(dim // 2) - low) / max(high - low, 0.001), 0, 1)
        return extra / yarn.factor * ramp + extra * (1 - ramp)

    # spec §3.4

    def route(self, layer: int, x: F64) -> Routed:
        text, gate = self.text, f"model.layers.{layer}.mlp.gate"
        hidden = self.post_norm(layer, x)
        scores = sigmoid(self.linear(hidden, gate))
        selection = scores + self.tensors[f"{gate}.e_score_correction_bias"]
        ids = np.argsort(-selection, axis=1, kind="stable")[:, : text.num_experts_per_tok]
        weights = np.take_along_axis(self.weighing(scores, selection), ids, axis=1)
        if text.norm_topk_prob:
            weights = weights / (weights.sum(axis=1, keepdims=True) + 1e-20)
        return Routed(hidden, scores, selection, ids, weights * text.routed_scaling_factor)

    def weighing(self, scores: F64, selection: F64) -> F64:
        """The bias selects but never weighs."""
        return scores

    # spec §3.5

    def dense(self, layer: int, x: F64) -> F64:
        return x + self.swiglu(self.post_norm(layer, x), f"model.layers.{layer}.mlp")

    def shared(self, layer: int, hidden: F64) -> F64:
        return self.swiglu(hidden, f"model.layers.{layer}.mlp.shared_experts")

    def swiglu(self, x: F64, prefix: str) -> F64:
        gate = self.linear(x, f"{prefix}.gate_proj")
        up = self.linear(x, f"{prefix}.up_proj")
        return self.linear(gate * sigmoid(gate) * up, f"{prefix}.down_proj")


def sigmoid(x: F64) -> F64:
    return 1 / (1 + np.exp(-x))


def softmax(scores: F64) -> F64:
    power = np.exp(scores - scores.max())
    return power / power.sum()
