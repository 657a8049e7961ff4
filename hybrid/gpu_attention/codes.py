"""int8 weights on a torch device: the codes and scales of `hybrid.cpu_dense.codes`, bit for bit.

    codes   int8 [..., out, in]
    scales  bf16 [..., out, groups]         one for each output and 32 inputs; the last may be short

scale = largest |w| / 127, rounded up to bf16; code = w / scale, rounded half to even. A group of
zeros has scale 0 and codes 0; one with an infinity or NaN has scale NaN and codes 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

GROUP = 32
CODED_AT_ONCE = 1 << 24  # weights; what they need in fp32 meanwhile is 128 MiB


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """A matrix [out, in], or one for each head [heads, out, in]."""

    codes: Tensor
    scales: Tensor


Weight = Tensor | Int8Weight


def encode(weight: Tensor) -> Int8Weight:
    """Code a bf16 tensor [..., out, in] along its inputs, on its own device.

    Another type is rounded to bf16 first, half to even.
    """
    rows = weight.to(torch.bfloat16).reshape(-1, weight.shape[-1])
    outputs, inputs = rows.shape
    codes = torch.empty_like(rows, dtype=torch.int8)
    scales = rows.new_empty(outputs, -(-inputs // GROUP))
    step = max(1, CODED_AT_ONCE // inputs)
    for at in range(0, outputs, step):
        count = min(step, outputs - at)
        block = _encode_rows(rows.narrow(0, at, count))
        codes.narrow(0, at, count).copy_(block.codes)
        scales.narrow(0, at, count).copy_(block.scales)
    return Int8Weight(codes.view(weight.shape), scales.view(*weight.shape[:-1], scales.shape[-1]))


def decode(weight: Int8Weight, dtype: torch.dtype) -> Tensor:
    """code * scale, exact in fp32 and wider; bf16 rounds it to 8 bits."""
    inputs = weight.codes.shape[-1]
    spread = weight.scales.float().repeat_interleave(GROUP, dim=-1).narrow(-1, 0, inputs)
    return (weight.codes.float() * spread).to(dtype)


def _encode_rows(rows: Tensor) -> Int8Weight:
    inputs = rows.shape[1]
    padded = functional.pad(rows.float(), (0, -inputs % GROUP))
    groups = padded.unflatten(1, (-1, GROUP))  # [out, groups, 32]
    scales = _scales(groups.abs().amax(dim=2))
    coded = (scales > 0).unsqueeze(2)
    codes = torch.where(coded, groups / scales.float().unsqueeze(2), 0.0).round()
    return Int8Weight(codes.to(torch.int8).flatten(1).narrow(1, 0, inputs), scales)


def _scales(largest: Tensor) -> Tensor:
    """Largest / 127, rounded up to bf16 (NaN if not finite), of fp32 magnitudes."""
    upwards = ((largest / 127).view(torch.int32) + 0xFFFF) >> 16
    scales = upwards.to(torch.int16).view(torch.bfloat16)
    return torch.where(largest.isfinite(), scales, float("nan"))
