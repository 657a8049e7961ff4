"""Fills the records of the verbs: one layer's weights joined to the shared scratch.

A `Verb` keeps the arrays alive whose addresses its record holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybrid import yarn
from hybrid.config import TextConfig
from hybrid.cpu_dense import paneling
from hybrid.cpu_dense.kernels import unit
from hybrid.cpu_dense.linear import fill_linear
from hybrid.cpu_dense.matrix import fill_matrix
from hybrid.cpu_dense.rows import Rows, padded
from hybrid.cpu_dense.scratch import Scratch, attention_bytes, shared_width
from hybrid.cpu_dense.tiles import Tiled
from hybrid.cpu_dense.verbs import ATTEND, FEED_FORWARD, HEAD, ROUTE
from hybrid.cpu_dense.weights import Weights


@dataclass(frozen=True, slots=True)
class Verb:
    """A filled record and what it points to."""

    record: NDArray[Any]  # [1]
    address: int
    kept: Sequence[Any]


def attend_verb(
    text: TextConfig, weights: Weights, layer: int, cache: NDArray[np.uint16], scratch: Scratch
) -> Verb:
    """Attention of one layer; cache: [kv_tokens, row] of that layer."""
    prefix = f"model.layers.{layer}."
    attn = f"{prefix}self_attn."
    qk = text.qk_nope_head_dim + text.qk_rope_head_dim
    heads, latent = text.num_attention_heads, text.kv_lora_rank
    kv_a_rows = latent + text.qk_rope_head_dim
    norm = weights.vector(f"{prefix}input_layernorm.weight", text.hidden_size)
    q_norm = weights.vector(f"{attn}q_a_layernorm.weight", text.q_lora_rank)
    kv_norm = weights.vector(f"{attn}kv_a_layernorm.weight", latent)
    q_kv_a = weights.stacked(
        [
            (f"{attn}q_a_proj.weight", text.q_lora_rank),
            (f"{attn}kv_a_proj_with_mqa.weight", kv_a_rows),
        ],
        text.hidden_size,
    )
    q_b = weights.matrix(f"{attn}q_b_proj.weight", heads * qk, text.q_lora_rank)
    k_up, v_up = _kv_b(text, weights, f"{attn}kv_b_proj.weight")
    o = weights.matrix(f"{attn}o_proj.weight", text.hidden_size, heads * text.v_head_dim)
    verb = _verb(ATTEND, norm, q_norm, kv_norm, q_kv_a, q_b, k_up, v_up, o, cache, scratch)
    job = verb.record[0]
    _fill_norm(job["norm"], norm, text.rms_norm_eps, scratch.hidden)
    fill_linear(job["q_kv_a"], q_kv_a, scratch.hidden, scratch.projected)
    _fill_latent(job["latent"], text, q_norm, kv_norm, cache, scratch)
    fill_linear(job["q_b"], q_b, scratch.q_latent, scratch.q)
    _fill_attention(job["attention"], text, k_up, v_up, cache, scratch)
    fill_linear(job["o"], o, scratch.heads, None)
    return verb


def dense_verb(text: TextConfig, weights: Weights, layer: int, scratch: Scratch) -> Verb:
    """The feed-forward of a layer without experts, with its norm."""
    prefix = f"model.layers.{layer}."
    norm = weights.vector(f"{prefix}post_attention_layernorm.weight", text.hidden_size)
    verb = _swiglu(text, weights, f"{prefix}mlp.", text.intermediate_size, scratch, norm)
    _fill_norm(verb.record[0]["norm"], norm, text.rms_norm_eps, scratch.hidden)
    return verb


def shared_verb(text: TextConfig, weights: Weights, layer: int, scratch: Scratch) -> Verb:
    """The shared expert; its input was normalised by the router."""
    prefix = f"model.layers.{layer}.mlp.shared_experts."
    return _swiglu(text, weights, prefix, shared_width(text), scratch, None)


def route_verb(text: TextConfig, weights: Weights, layer: int, scratch: Scratch) -> Verb:
    """The router of a layer with experts, with its norm."""
    prefix = f"model.layers.{layer}."
    gate_name, experts = f"{prefix}mlp.gate.", text.n_routed_experts
    norm = weights.vector(f"{prefix}post_attention_layernorm.weight", text.hidden_size)
    gate = weights.exact_matrix(f"{gate_name}weight", experts, text.hidden_size)
    bias = weights.vector(f"{gate_name}e_score_correction_bias", experts)
    verb = _verb(ROUTE, norm, gate, bias, scratch)
    job = verb.record[0]
    _fill_norm(job["norm"], norm, text.rms_norm_eps, scratch.hidden)
    fill_linear(job["gate"], gate, scratch.hidden, scratch.router)
    _fill(
        job["select"],
        unit=unit("select"),
        logits=scratch.router.address,
        row_bytes=scratch.router.row_bytes,
        bias=bias.ctypes.data,
        experts=experts,
        k=text.num_experts_per_tok,
        normalised=text.norm_topk_prob,
        factor=text.routed_scaling_factor,
    )
    return verb


def head_verb(text: TextConfig, weights: Weights, scratch: Scratch) -> Verb:
    """The final norm and lm_head."""
    norm = weights.vector("model.norm.weight", text.hidden_size)
    head = weights.matrix("lm_head.weight", text.vocab_size, text.hidden_size)
    verb = _verb(HEAD, norm, head, scratch)
    _fill_norm(verb.record[0]["norm"], norm, text.rms_norm_eps, scratch.hidden)
    fill_linear(verb.record[0]["head"], head, scratch.hidden, None)
    return verb


def _kv_b(text: TextConfig, weights: Weights, name: str) -> tuple[Tiled, Tiled]:
    """W_UK transposed ([latent, nope] per head) and W_UV ([value, latent] per head)."""
    nope, value = text.qk_nope_head_dim, text.v_head_dim
    rows = text.num_attention_heads * (nope + value)
    kv_b = weights.bits(name, rows, text.kv_lora_rank)
    by_head = kv_b.reshape(text.num_attention_heads, nope + value, text.kv_lora_rank)
    return (
        weights.per_head([head[:nope].T for head in by_head]),
        weights.per_head([head[nope:] for head in by_head]),
    )


def _swiglu(
    text: TextConfig, weights: Weights, prefix: str, size: int, scratch: Scratch, norm: Any
) -> Verb:
    parts = [(f"{prefix}{name}_proj.weight", size) for name in ("gate", "up")]
    gate_up = weights.stacked(parts, text.hidden_size)
    down = weights.matrix(f"{prefix}down_proj.weight", text.hidden_size, size)
    verb = _verb(FEED_FORWARD, gate_up, down, norm, scratch)
    job = verb.record[0]
    fill_linear(job["gate_up"], gate_up, scratch.hidden, scratch.gate_up)
    _fill(
        job["swiglu"],
        unit=unit("swiglu"),
        rows=scratch.gate_up.address,
        row_bytes=scratch.gate_up.row_bytes,
        half_bytes=padded(size) * 4,
    )
    fill_linear(job["down"], down, scratch.gate_up, None)
    return verb


def _verb(kind: np.dtype[Any], *kept: Any) -> Verb:
    record = np.zeros(1, kind)
    return Verb(record, record.ctypes.data, kept)


def _fill(job: Any, **values: float) -> None:
    for name, value in values.items():
        job[name] = value


def _fill_norm(job: Any, weight: NDArray[np.float32], eps: float, out: Rows) -> None:
    _fill(
        job,
        unit=unit("norm"),
        x_bytes=weight.nbytes,
        weight=weight.ctypes.data,
        size=len(weight),
        out=out.address,
        out_bytes=out.row_bytes,
        eps=eps,
    )


def _fill_latent(
    job: Any, text: TextConfig, q_norm: Any, kv_norm: Any, cache: Any, scratch: Scratch
) -> None:
    _fill(
        job,
        unit=unit("latent"),
        projected=scratch.projected.address,
        projected_bytes=scratch.projected.row_bytes,
        q_lora_rank=text.q_lora_rank,
        c_bytes=padded(text.q_lora_rank) * 4,
        kv_lora_rank=text.kv_lora_rank,
        rope=text.qk_rope_head_dim,
        q_a_layernorm=q_norm.ctypes.data,
        kv_a_layernorm=kv_norm.ctypes.data,
        q_latent=scratch.q_latent.address,
        q_latent_bytes=scratch.q_latent.row_bytes,
        cache=cache.ctypes.data,
        row_bytes=cache.strides[0],
        cos=scratch.cos.address,
        sin=scratch.sin.address,
        table_bytes=scratch.cos.row_bytes,
        eps=text.latent_norm_eps,
    )


def _fill_attention(
    job: Any, text: TextConfig, k_up: Tiled, v_up: Tiled, cache: Any, scratch: Scratch
) -> None:
    _, query_bytes, mixed_bytes, row_bytes = attention_bytes(text)
    _fill(
        job,
        unit=unit("attention"),
        heads=text.num_attention_heads,
        nope=text.qk_nope_head_dim,
        rope=text.qk_rope_head_dim,
        value=text.v_head_dim,
        latent=text.kv_lora_rank,
        q=scratch.q.address,
        q_bytes=scratch.q.row_bytes,
        cos=scratch.cos.address,
        sin=scratch.sin.address,
        table_bytes=scratch.cos.row_bytes,
        cache=cache.ctypes.data,
        row_bytes=row_bytes,
        paired=paneling.address("paired"),
        plain=paneling.address("plain"),
        out=scratch.heads.address,
        out_bytes=scratch.heads.row_bytes,
        scratch=scratch.workers.address,
        scratch_bytes=scratch.workers.row_bytes,
        query_bytes=query_bytes,
        mixed_bytes=mixed_bytes,
        threads=len(scratch.workers.memory),
        scale=yarn.softmax_scale(text),
    )
    fill_matrix(job["k_up"], k_up)
    fill_matrix(job["v_up"], v_up)
