"""What the operations of ops.py mean, in plain torch: their bodies on the CPU, in any type.

The kernels are held to these, computed in float64, and blocks of a prompt take those of the dense
layers on CUDA too: there torch's products are as fast as its maker knows how.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hybrid.gpu_attention.codes import Int8Weight, decode
from hybrid.gpu_attention.layers import rms_norm


def linear(
    x: Tensor, weight: Tensor, scales: Tensor | None, norm: Tensor | None, eps: float
) -> Tensor:
    """See ops.linear and ops.norm_linear."""
    if norm is not None:
        x = rms_norm(x, norm, eps)
    return functional.linear(x, _whole(weight, scales, x.dtype))


def per_head(x: Tensor, weight: Tensor, scales: Tensor | None) -> Tensor:
    """See ops.per_head."""
    matrices = _whole(weight, scales, x.dtype).transpose(1, 2)
    return torch.bmm(x.transpose(0, 1), matrices).transpose(0, 1).contiguous()


def mla_decode(
    query: Tensor, pages: Tensor, table: Tensor, start: Tensor, scale: float, rank: int
) -> Tensor:
    """See ops.mla_decode; reads `start`, so it is for memory that the host has."""
    page, first = pages.shape[1], int(start.item())
    end = first + query.shape[0]
    used = pages.index_select(0, table.narrow(0, 0, -(-end // page)))
    rows = used.flatten(0, 1).narrow(0, 0, end)  # [end, width]
    scores = (query.transpose(0, 1) @ rows.T).float() * scale  # [heads, tokens, end]
    later = torch.arange(end) > torch.arange(first, end).unsqueeze(1)
    weights = torch.softmax(scores.masked_fill(later, float("-inf")), dim=-1).to(rows.dtype)
    return (weights @ rows.narrow(1, 0, rank)).transpose(0, 1).contiguous()


def route(
    hidden: Tensor, gate: Tensor, bias: Tensor, k: int, norm_topk_prob: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """See ops.route."""
    scores = torch.sigmoid(functional.linear(hidden.float(), gate.float()))  # [tokens, experts]
    ranked = scores + bias
    ranked = ranked.masked_fill(ranked.isnan(), float("-inf"))
    # torch.topk leaves the order of equal values open
    ids = torch.sort(ranked, dim=-1, descending=True, stable=True).indices.narrow(-1, 0, k)
    weights = scores.gather(-1, ids)
    if norm_topk_prob:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return ids.to(torch.int32), weights * scaling


def _whole(weight: Tensor, scales: Tensor | None, dtype: torch.dtype) -> Tensor:
    return weight if scales is None else decode(Int8Weight(weight, scales), dtype)
