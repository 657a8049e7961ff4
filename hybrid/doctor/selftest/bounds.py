"""How far a bf16 result may lie from the exact one, so that a wrong kernel cannot hide.

product     fp32 sums of n exact products, each addition off by 2^-23 of the terms at most (an
            adder may cut off), then one rounding to bf16
norm        before it, what an ulp more or less before each of the norm's roundings changes
attention   scores as such sums; what a score is off, a weight is off in proportion, and its sum
            too; each weight is rounded to bf16, and so is the result
"""

import torch
from torch import Tensor

HALF_ULP = 2.0**-8  # of bf16, of a value at most
ADDED = 2.0**-23  # of the sum of magnitudes, by one addition in fp32
INT8_GROUPS = 34  # a group's sum is scaled and added: so many more roundings


def product(x: Tensor, weight: Tensor, exact: Tensor) -> Tensor:
    """For x [.., in] times weight [out, in], all in float64: [.., out]."""
    terms = x.abs() @ weight.abs().mT
    return (x.shape[-1] + INT8_GROUPS) * ADDED * terms + HALF_ULP * exact.abs()


def norm(x: Tensor, factor: Tensor, eps: float, weight: Tensor) -> Tensor:
    """What RMSNorm of bf16 x [.., in] may add, times weight [out, in] in float64: [.., out]."""
    wide = x.float()
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    off = (x.shape[-1] + 8) * 2.0**-24
    low, high = ((wide * (inverse * f)).bfloat16() * factor for f in (1 - off, 1 + off))
    return (high - low).double().abs() @ weight.abs().mT


def attention(
    query: Tensor, rows: Tensor, start: int, scale: float, rank: int
) -> tuple[Tensor, Tensor]:
    """The exact result and the bound [tokens, heads, rank], of float64 query and rows in order."""
    exact, limit = [], []
    for token, q in enumerate(query):
        seen = rows[: start + token + 1]
        weights = torch.softmax(scale * (q @ seen.T), dim=-1)
        largest = (scale * (q.abs() @ seen.abs().T)).amax(-1, keepdim=True)
        off = 2 * largest * seen.shape[1] * 2 * ADDED
        value, size = weights @ seen[:, :rank], weights @ seen[:, :rank].abs()
        sums = (len(rows) + 16) * ADDED
        exact.append(value)
        limit.append((HALF_ULP + off + sums) * size + HALF_ULP * value.abs())
    return torch.stack(exact), torch.stack(limit)
