"""One launch for each token's row: encode it before the experts, combine it after them."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN201, N803 (Triton compiles these; constants are its capitals)

import triton
import triton.language as tl

from hybrid.gpu_experts.kernels.numerics import store_encoded


@triton.jit
def encode(
    x,  # f32 [T, 32 * GROUPS]
    codes,
    scales,
    offsets,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    PLANES: tl.constexpr,
    WORDS: tl.constexpr,
):
    """Program (token, block): BLOCK groups of 32 inputs of one row."""
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = group < GROUPS
    at = row * GROUPS * 32 + group[:, None] * 32 + tl.arange(0, 32)[None, :]
    values = tl.load(x + at, mask=live[:, None], other=0.0)
    rows = row + tl.zeros((BLOCK,), tl.int64)
    store_encoded(codes, scales, offsets, values, rows, group, live, GROUPS, PLANES, WORDS)


@triton.jit
def combine(
    outputs,  # f32 [T * k, HIDDEN]
    ids,  # int32 [T, k]
    weights,  # f32 [T, k]
    result,  # f32 [T, HIDDEN]
    k,
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Program (token, block): BLOCK columns of one row, slots in order, rows of -1 not read."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = column < HIDDEN
    total = tl.zeros((BLOCK,), tl.float32)
    for pair in range(token * k, token * k + k):
        if tl.load(ids + pair) >= 0:
            output = tl.load(outputs + pair * HIDDEN + column, mask=live, other=0.0)
            total = total + tl.load(weights + pair) * output
    tl.store(result + token * HIDDEN + column, total, mask=live)
