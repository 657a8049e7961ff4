"""Multi-head latent attention, expanded: keys and values of every token are rebuilt (spec §3.2)."""

import torch
from torch import Tensor
from torch.nn import functional

from hybrid.config import TextConfig
from hybrid.yarn import softmax_scale
from nano.model.batch import Batch, Block
from nano.model.parameters import Parameters


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last dimension (spec §3.1)."""
    return functional.rms_norm(x, weight.shape, weight, eps)


def attention(
    text: TextConfig, p: Parameters, layer: int, h: Tensor, batch: Batch, turn: Tensor
) -> Tensor:
    """MLA of normalised rows h [n, hidden]; `turn` complex64 [n, rope / 2] of their positions."""
    prefix = f"model.layers.{layer}.self_attn."
    heads, nope, rope = text.num_attention_heads, text.qk_nope_head_dim, text.qk_rope_head_dim
    latent_q = h @ p[f"{prefix}q_a_proj.weight"].T
    latent_q = rms_norm(latent_q, p[f"{prefix}q_a_layernorm.weight"], text.latent_norm_eps)
    q = (latent_q @ p[f"{prefix}q_b_proj.weight"].T).view(-1, heads, nope + rope)
    row = h @ p[f"{prefix}kv_a_proj_with_mqa.weight"].T
    latent, k_rope = row.split((text.kv_lora_rank, rope), dim=-1)
    latent = rms_norm(latent, p[f"{prefix}kv_a_layernorm.weight"], text.latent_norm_eps)
    kv = (latent @ p[f"{prefix}kv_b_proj.weight"].T).view(-1, heads, nope + text.v_head_dim)
    k_nope, v = kv.split((nope, text.v_head_dim), dim=-1)
    q_nope, q_rope = q.split((nope, rope), dim=-1)
    q = torch.cat((q_nope, turned(q_rope, turn[:, None])), dim=-1)
    shared = turned(k_rope, turn)[:, None].expand(-1, heads, -1)
    k = torch.cat((k_nope, shared), dim=-1)
    mixed = _attended(q, k, v, batch, softmax_scale(text))
    return mixed.flatten(1) @ p[f"{prefix}o_proj.weight"].T


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate adjacent pairs of x [..., 2p] by complex turn [..., p]."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(-2)


def _attended(q: Tensor, k: Tensor, v: Tensor, batch: Batch, scale: float) -> Tensor:
    """Causal attention within each sequence: [n, heads, v_head_dim].

    Values are widened with zeros to the keys' width: torch's fused kernel wants them alike.
    """
    width = v.shape[-1]
    v = functional.pad(v, (0, q.shape[-1] - width))
    counts = [len(block.slots) for block in batch.blocks]
    mixed = []
    for block, *parts in zip(batch.blocks, *(x.split(counts) for x in (q, k, v)), strict=True):
        queries, keys, values = (_padded(x, block).transpose(1, 2) for x in parts)
        seen = functional.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, scale=scale
        )
        mixed.append(seen.transpose(1, 2).flatten(0, 1)[block.slots])
    return torch.cat(mixed)[..., :width]


def _padded(x: Tensor, block: Block) -> Tensor:
    """Rows [n, ...] as [sequences, longest, ...], zeros where there are none."""
    sequences, longest = block.padded
    if len(x) != sequences * longest:
        room = x.new_zeros(sequences * longest, *x.shape[1:])
        x = room.index_copy(0, block.slots, x)
    return x.view(sequences, longest, *x.shape[1:])
