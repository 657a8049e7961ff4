"""What a checkpoint can hold: the weights that the graph computes with are these and no others.

    backbone   bf16, half to even
    experts    INT4 in groups of 32 along the input: code = round(w / scale), scale = bf16(amax / 7)
               value = code * scale in float32: exact, a product of 4 and 8 bits

`codes` is the one quantiser: training fakes with it, export packs with it, so the dequantised
checkpoint is the graph's weights bit for bit. Gradients pass straight through (the optimiser moves
unrounded masters, see training/masters.py).
"""

import torch
from torch import Tensor

GROUP = 32
LEAST, MOST = -8, 7
SMALLEST_SCALE = 2.0**-100  # of a group of zeros


def bf16(values: Tensor) -> Tensor:
    """Round float32 to the nearest bf16, kept in float32."""
    return values.bfloat16().float()


def codes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes int8 [..., in] and scales float32 [..., in / 32], representable in bf16."""
    groups = values.unflatten(-1, (-1, GROUP))
    scale = bf16(groups.abs().amax(-1) / MOST).clamp_min(SMALLEST_SCALE)
    code = torch.round(groups / scale[..., None]).clamp_(LEAST, MOST)
    return code.flatten(-2).to(torch.int8), scale


def dequantised(code: Tensor, scale: Tensor) -> Tensor:
    """Return code times scale, float32 [..., in]."""
    values: Tensor = code.unflatten(-1, (-1, GROUP)).float() * scale[..., None]
    return values.flatten(-2)


def int4(values: Tensor) -> Tensor:
    """Round float32 [..., in] to what INT4 holds."""
    groups = values.unflatten(-1, (-1, GROUP))
    scale = bf16(groups.abs().amax(-1, keepdim=True) / MOST).clamp_min_(SMALLEST_SCALE)
    return torch.round(groups / scale).clamp_(LEAST, MOST).mul_(scale).flatten(-2)
