"""Muon: a matrix moves along its orthogonalised momentum, each part of it for itself.

Newton-Schulz rounds bring the singular values near one (Jordan et al., 2024), times
0.2 sqrt(max(out, in)) so that AdamW's learning rate fits (Liu et al., "Muon is scalable for LLM
training", arXiv 2502.16982). What belongs to one head, or to gate or up alone, is a matrix of its
own: cheaper, and one head's large gradient takes nothing from another's.
"""

import math

import torch
from torch import Tensor

from nano.model.parameters import is_expert

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
WIDE = 1.8  # from this ratio of sides on, powers of x x^T are cheaper than products with x


def update(name: str, momentum: Tensor, heads: int) -> Tensor:
    """Where a matrix moves; as large as AdamW's updates are."""
    if is_expert(name) and name.endswith("gate_up"):
        halves = momentum.unflatten(1, (2, -1))  # [experts, 2, intermediate, hidden]
        return _scaled(halves).flatten(1, 2)
    if name.endswith(("q_b_proj.weight", "kv_b_proj.weight")):  # [heads * size, rank]
        return _scaled(momentum.unflatten(0, (heads, -1))).flatten(0, 1)
    if name.endswith("self_attn.o_proj.weight"):  # [hidden, heads * v_head_dim]
        columns = _scaled(momentum.unflatten(1, (heads, -1)).transpose(0, 1))
        return columns.transpose(0, 1).flatten(1)
    if momentum.ndim == 4:  # the patch embedding [D, 3, height, width]
        return _scaled(momentum.flatten(1)).view_as(momentum)
    return _scaled(momentum)


def _scaled(momentum: Tensor) -> Tensor:
    return orthogonal(momentum).mul_(0.2 * math.sqrt(max(momentum.shape[-2:])))


def orthogonal(momentum: Tensor) -> Tensor:
    """The nearest orthogonal matrix, roughly; of each matrix of a stack [..., out, in]."""
    tall = momentum.shape[-2] > momentum.shape[-1]
    x = (momentum.mT if tall else momentum).contiguous()
    x = x.view(-1, *x.shape[-2:])
    x = x / (x.flatten(-2).norm(dim=-1)[..., None, None] + 1e-7)
    x = by_gram(x) if x.shape[-1] >= WIDE * x.shape[-2] else by_products(x)
    x = x.view(*momentum.shape[:-2], *x.shape[-2:])
    return x.mT if tall else x


def by_products(x: Tensor) -> Tensor:
    """Rounds of x <- (a + b x x^T + c (x x^T)^2) x for a stack [n, out, in], out <= in."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(ROUNDS):
        square = torch.bmm(x, x.mT)
        factor = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, factor, x, beta=a)
    return x


def by_gram(x: Tensor) -> Tensor:
    """The same: the factors commute, so they are found from x x^T alone and applied at once."""
    a, b, c = NEWTON_SCHULZ
    square = torch.bmm(x, x.mT)
    whole: Tensor | None = None
    for _ in range(ROUNDS):
        factor = torch.baddbmm(square, square, square, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        square = torch.bmm(torch.bmm(factor, square), factor)
        whole = factor if whole is None else torch.bmm(factor, whole)
    return x if whole is None else torch.bmm(whole, x)
