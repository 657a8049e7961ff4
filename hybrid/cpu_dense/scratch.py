"""Intermediate rows of all verbs: made once for the largest block, shared by all layers."""

from dataclasses import dataclass
from typing import Any

from hybrid.config import TextConfig
from hybrid.cpu_dense.attention import scratch_parts
from hybrid.cpu_dense.panel import GROUP
from hybrid.cpu_dense.rows import Rows, padded


@dataclass(frozen=True, slots=True)
class Scratch:
    """Layers run one after another, so one set serves them all."""

    hidden: Rows  # normalised input
    projected: Rows  # q_a | c | k_rope
    q_latent: Rows
    q: Rows  # readable a group of inputs beyond the last head's
    heads: Rows  # attention output before o_proj
    gate_up: Rows
    router: Rows  # scores of all experts, padded | of the chosen
    cos: Rows
    sin: Rows
    workers: Rows  # attention: one row per worker

    @classmethod
    def for_model(cls, text: TextConfig, threads: int) -> "Scratch":
        """Reserve all of it."""
        heads = text.num_attention_heads
        experts = padded(text.n_routed_experts) + text.num_experts_per_tok
        widest = max(shared_width(text), text.intermediate_size)
        pairs = text.qk_rope_head_dim // 2
        return cls(
            hidden=Rows.zeros(text.hidden_size),
            projected=Rows.zeros(padded(text.q_lora_rank) + latent_width(text)),
            q_latent=Rows.zeros(text.q_lora_rank),
            q=Rows.zeros(heads * (text.qk_nope_head_dim + text.qk_rope_head_dim) + GROUP),
            heads=Rows.zeros(heads * text.v_head_dim),
            gate_up=Rows.zeros(2 * padded(widest)),
            router=Rows.zeros(experts),
            cos=Rows.zeros(pairs),
            sin=Rows.zeros(pairs),
            workers=Rows.zeros(attention_bytes(text)[0] // 4, threads),
        )


def latent_width(text: TextConfig) -> int:
    """Numbers the cache keeps of a token in one layer."""
    return text.kv_lora_rank + text.qk_rope_head_dim


def shared_width(text: TextConfig) -> int:
    """Intermediate size of the shared expert: all n_shared_experts side by side."""
    return text.n_shared_experts * text.moe_intermediate_size


def attention_bytes(text: TextConfig) -> tuple[int, int, int, int]:
    """Bytes of a worker's scratch, of a query row, of a mixed row, of a cache row."""
    query, mixed = padded(latent_width(text)) * 4, padded(text.kv_lora_rank) * 4
    row = padded(latent_width(text)) * 2
    parts: Any = scratch_parts.py_func(query, mixed, row)
    return int(parts[-1]), query, mixed, row
