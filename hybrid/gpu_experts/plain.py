"""The experts in plain torch: what the kernels compute, one float32 operation at a time.

The body of the operators on CPU tensors, and what Triton's kernels are compared with. design §4.1
defines the numbers; dot products are sums of integers below 2^24, so a float32 matrix product
gives them exactly in any order.
"""

import torch
from torch import Tensor

from hybrid.cpu_experts.record import GROUP, GROUP_BYTES, ROWS, STRIDE, RecordShape

LARGEST = {"int8": 127, "int16": 127 * 256 + 127}  # code of a group's largest magnitude

_EXP_LIMIT = 87.0
_ROUND = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, half to even
_EXP_C = (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def outputs(
    x: Tensor, slot_ids: Tensor, slots: Tensor, shape: RecordShape, mode: str, out: Tensor
) -> None:
    """Write expert(x) of every slot id that is not -1 to row t * k + slot of `out`.

    x f32 [T, hidden], slot_ids int32 [T, k], slots uint8 [count, nbytes], out f32 [T * k, hidden].
    """
    flat = slot_ids.reshape(-1)  # [T * k]
    for slot in torch.unique(flat[flat >= 0]).tolist():
        pairs = torch.nonzero(flat == slot).flatten()
        rows = x.index_select(0, pairs // slot_ids.shape[1])
        out.index_copy_(0, pairs, expert(slots[slot], rows, shape, mode))


def expert(record: Tensor, x: Tensor, shape: RecordShape, mode: str) -> Tensor:
    """One expert's f32 [n, hidden] for x f32 [n, hidden]; record uint8 [nbytes]."""
    blocks = 2 * shape.intermediate // ROWS
    gate_up = record[: shape.down_offset].view(blocks // 2, 2, shape.gate_block_bytes)
    down = record[shape.down_offset :].view(-1, shape.down_block_bytes)
    gate, up = (matvec(gate_up[:, half], x, mode) for half in (0, 1))  # [n, intermediate]
    return matvec(down, silu(gate) * up, mode)


def matvec(blocks: Tensor, x: Tensor, mode: str) -> Tensor:
    """f32 [n, 16 * blocks] of row blocks uint8 [blocks, bytes] and rows x f32 [n, inputs]."""
    codes, scales = unpack(blocks)
    grouped = x.view(len(x), -1, GROUP)
    if mode == "bf16":
        return _matvec_bf16(codes, scales, grouped)
    values, value_scales = quantise(grouped, LARGEST[mode])
    dots = torch.bmm(values.transpose(0, 1), codes.transpose(1, 2))  # [groups, n, rows], exact
    total = x.new_zeros(len(x), codes.shape[1])
    for dot, scale, value_scale in zip(dots, scales, value_scales.T, strict=True):
        total = total + dot * (scale * value_scale[:, None])
    return total


def _matvec_bf16(codes: Tensor, scales: Tensor, x: Tensor) -> Tensor:
    x = x.to(torch.bfloat16).to(torch.float32).permute(1, 2, 0)  # [groups, 32, n]
    dots = x.new_zeros(len(codes), x.shape[2], codes.shape[1])
    for column in range(GROUP):
        dots = dots + x[:, column, :, None] * codes[:, None, :, column]
    total = torch.zeros_like(dots[0])
    for dot, scale in zip(dots, scales, strict=True):
        total = total + dot * scale
    return total


def unpack(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Row blocks uint8 [blocks, bytes] -> f32 codes [groups, rows, 32], scales [groups, rows]."""
    groups = blocks.reshape(len(blocks), -1, STRIDE)
    lines = groups[..., :GROUP_BYTES].reshape(*groups.shape[:2], 4, ROWS, 4)
    nibbles = torch.stack((lines & 15, lines >> 4), dim=-2)  # [block, group, line, row, half, 4]
    codes = nibbles.permute(1, 0, 3, 2, 4, 5).reshape(groups.shape[1], -1, GROUP)
    scales = groups[..., GROUP_BYTES:].contiguous().view(torch.bfloat16)  # [block, group, row]
    scales = scales.transpose(0, 1).reshape(len(codes), -1)
    return codes.to(torch.float32) - 8, scales.to(torch.float32)


def quantise(groups: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """f32 [n, groups, 32] -> codes as f32 of the same shape, scales f32 [n, groups]."""
    amax = groups.abs().amax(dim=2)  # NaN where a member is NaN
    scale = torch.where(amax < torch.inf, amax / largest, torch.nan)
    live = scale > 0
    quotient = groups / torch.where(live, scale, 1.0)[..., None]
    codes = torch.where(live[..., None], quotient.round(), 0.0)  # half to even
    return codes.clamp(-largest, largest), scale


def exp(x: Tensor) -> Tensor:
    """The polynomial of the runtime for |x| <= 87, operation by operation."""
    n = (x * 1.44269504 + _ROUND) - _ROUND
    r = (x - n * 0.693359375) - n * -2.12194440e-4
    p = torch.full_like(x, 1.9875691500e-4)
    for c in _EXP_C:
        p = p * r + c
    p = (p * r * r + r) + 1.0
    exponent = torch.nan_to_num(n).to(torch.int32) + 127
    return p * (exponent << 23).view(torch.float32)


def silu(gate: Tensor) -> Tensor:
    """gate / (1 + e^-gate); the gate is clamped to >= -87, exp's argument to [-87, 87]."""
    gate = torch.where(gate < -_EXP_LIMIT, -_EXP_LIMIT, gate)
    limited = torch.where(gate > _EXP_LIMIT, _EXP_LIMIT, gate)
    return gate / (1.0 + exp(0.0 - limited))


def combine(outputs: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """See ops.combine."""
    tokens, k = ids.shape
    rows = outputs.view(tokens, k, outputs.shape[1])
    total = rows.new_zeros(tokens, rows.shape[2])
    for slot in range(k):
        sum_ = total + weights[:, slot, None] * rows[:, slot]
        total = torch.where(ids[:, slot, None] >= 0, sum_, total)
    return total
