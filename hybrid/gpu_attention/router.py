"""Which experts a token goes to: sigmoid scores, a bias that selects but never weighs."""

import torch
from torch import Tensor
from torch.nn import functional

from hybrid.config import TextConfig


def route(hidden: Tensor, gate: Tensor, bias: Tensor, text: TextConfig) -> tuple[Tensor, Tensor]:
    """Ids and weights [tokens, num_experts_per_tok] for hidden [tokens, hidden_size] (spec §3.4).

    gate [n_routed_experts, hidden_size] and bias [n_routed_experts] are fp32, as is all of it: a
    bf16 router picks other experts.
    """
    scores = torch.sigmoid(functional.linear(hidden.float(), gate))  # [tokens, n_routed_experts]
    ids = torch.topk(scores + bias, text.num_experts_per_tok, dim=-1).indices
    weights = scores.gather(-1, ids)
    if text.norm_topk_prob:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return ids, weights * text.routed_scaling_factor
