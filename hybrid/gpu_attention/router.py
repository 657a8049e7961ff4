"""Which experts a token goes to: sigmoid scores, a bias that selects but never weighs."""

from torch import Tensor

from hybrid.config import TextConfig
from hybrid.gpu_attention import ops


def route(hidden: Tensor, gate: Tensor, bias: Tensor, text: TextConfig) -> tuple[Tensor, Tensor]:
    """Ids int32 and weights fp32 [tokens, num_experts_per_tok] for hidden [tokens, hidden_size].

    See `ops.route`; on CUDA nothing of it waits for the device.
    """
    return ops.route(
        hidden,
        gate,
        bias,
        text.num_experts_per_tok,
        text.norm_topk_prob,
        text.routed_scaling_factor,
    )
