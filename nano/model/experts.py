"""Router and routed experts: each expert takes its rows as one product, in order of experts.

    ids [n, k] -> sorted by expert -> one slice an expert -> gate_up, SwiGLU, down -> back, weighted

The backward pass is written by hand: torch's own would keep five copies of the sorted rows and add
gradients of the stacks one slice at a time.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hybrid.config import TextConfig
from nano.model.parameters import BIAS, Parameters


def routed(text: TextConfig, p: Parameters, layer: int, h: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the chosen experts for rows h [n, hidden], and how often each was chosen [experts].

    Weights are the unbiased scores, normalised and scaled; the bias only chooses (spec §3.4).
    """
    prefix = f"model.layers.{layer}.mlp."
    scores = torch.sigmoid(h @ p[f"{prefix}gate.weight"].T)  # [n, experts]
    chosen = (scores.detach() + p[f"model.layers.{layer}.{BIAS}"]).topk(
        text.num_experts_per_tok, dim=-1, sorted=False
    )
    ids = chosen.indices
    weights = scores.gather(1, ids)
    if text.norm_topk_prob:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    weights = weights * text.routed_scaling_factor
    stacks = (p[f"{prefix}experts.gate_up"], p[f"{prefix}experts.down"])
    out: Tensor = _Experts.apply(h, weights, ids, *stacks)
    return out, torch.bincount(ids.flatten(), minlength=text.n_routed_experts)


class _Experts(torch.autograd.Function):
    """y[n] = sum over k of weight[n, k] * expert_ids[n, k](h[n])."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, weights: Tensor, ids: Tensor, gate_up: Tensor, down: Tensor
    ) -> Tensor:
        order = ids.flatten().argsort(stable=True)
        counts = torch.bincount(ids.flatten(), minlength=len(down)).tolist()
        k = ids.shape[1]
        x = h[order // k]  # [n * k, hidden]
        inner = _products(x, gate_up, counts)  # [n * k, 2 * intermediate]
        gate, up = inner.chunk(2, dim=-1)
        y = _products(functional.silu(gate) * up, down, counts)  # [n * k, hidden]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        ctx.counts = counts
        ctx.save_for_backward(x, inner, y, weights, order, back, gate_up, down)
        return torch.einsum("nkh,nk->nh", y[back].view(len(h), k, -1), weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, inner, y, weights, order, back, gate_up, down = ctx.saved_tensors
        n, k = weights.shape
        spread = grad[order // k]  # [n * k, hidden]
        grad_weights = (spread * y).sum(-1)[back].view(n, k)
        spread = spread.mul_(weights.flatten()[order][:, None])
        gate, up = inner.chunk(2, dim=-1)
        half = torch.sigmoid(gate)
        acted = gate * half  # silu
        grad_down = _outer(spread, acted * up, down, ctx.counts)
        grad_hidden = _products(spread, down.transpose(1, 2), ctx.counts)
        grad_gate = grad_hidden * up * (half + acted * (1 - half))
        grad_inner = torch.cat((grad_gate, grad_hidden * acted), dim=-1)
        grad_gate_up = _outer(grad_inner, x, gate_up, ctx.counts)
        grad_x = _products(grad_inner, gate_up.transpose(1, 2), ctx.counts)
        grad_h = grad_x[back].view(n, k, -1).sum(1)
        return grad_h, grad_weights, None, grad_gate_up, grad_down


def _products(x: Tensor, stack: Tensor, counts: list[int]) -> Tensor:
    """Rows of each expert times its matrix [out, in] transposed."""
    out = x.new_empty(len(x), stack.shape[1])
    start = 0
    for count, matrix in zip(counts, stack, strict=True):
        if count:
            stop = start + count
            torch.mm(x[start:stop], matrix.T, out=out[start:stop])
            start = stop
    return out


def _outer(grad: Tensor, x: Tensor, stack: Tensor, counts: list[int]) -> Tensor:
    """Gradient of the stack: for each expert grad^T x of its rows."""
    out = torch.zeros_like(stack)
    start = 0
    for expert, count in enumerate(counts):
        if count:
            stop = start + count
            torch.mm(grad[start:stop].T, x[start:stop], out=out[expert])
            start = stop
    return out
