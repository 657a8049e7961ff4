"""A kernel that hands out what kernels/numerics.py computes."""
# ruff: noqa: N803 (constants are Triton's capitals)

import triton
import triton.language as tl

from hybrid.gpu_experts.kernels.numerics import quantise, round_bf16, silu


@triton.jit
def numerics(x, silus, rounded, codes, scales, N: tl.constexpr, LARGEST: tl.constexpr):
    """x f32 [N, 32] -> silu and bf16 rounding f32, codes int32 [N, 32]; scales f32 [N]."""
    row = tl.arange(0, N)
    at = row[:, None] * 32 + tl.arange(0, 32)[None, :]
    values = tl.load(x + at)
    tl.store(silus + at, silu(values))
    tl.store(rounded + at, round_bf16(values))
    code, scale = quantise(values, LARGEST)
    tl.store(codes + at, code)
    tl.store(scales + row, scale)
