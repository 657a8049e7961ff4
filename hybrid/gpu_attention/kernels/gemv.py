"""Few tokens times a matrix, bf16 or int8, with the RMSNorm before it: one pass over the weights.

    y[token][output] = sum over inputs of norm(x)[token][input] * w[output][input]      fp32 sums
    bf16   one product of tensor cores for STEP inputs
    int8   one for each group of 32: codes are exact in bf16, their sum is scaled in fp32

Decode is bound by the bytes of the weights, so all is arranged for them to arrive: a program takes
OUTPUTS rows, STAGES - 1 steps of loads are under way while one is multiplied, and the weights are
the left operand, which int8 codes reach without a second way through shared memory. 16 rows of
7168 inputs make 132 programs of the 2112 outputs of q_a | kv_a: as many as a card has
multiprocessors. All tokens up to 16 take the same instructions, so a token's bits do not depend on
its neighbours. Each program takes the norm of x for itself, from L2: 14 KB a token against the
229 KB of its 16 rows.

Bytes: each weight once (2, or 1 + 2/32 in int8), tokens * in and tokens * out beside it.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# ruff: noqa: ANN001, ANN201, ANN202, N803 (Triton reads the source: its types and names are its own)

import triton
import triton.language as tl


@triton.jit
def _inverse(x, x_token, tokens, inputs, eps, TOKENS: tl.constexpr, STEP: tl.constexpr):
    """1 / sqrt(mean(x^2) + eps): [TOKENS]."""
    token = tl.arange(0, TOKENS)
    squares = tl.zeros([TOKENS, STEP], tl.float32)
    for at in tl.range(0, inputs, STEP):
        column = at + tl.arange(0, STEP)
        there = (token < tokens)[:, None] & (column < inputs)[None, :]
        value = tl.load(x + token[:, None] * x_token + column[None, :], mask=there, other=0.0)
        value = value.to(tl.float32)
        squares += value * value
    return tl.rsqrt(tl.sum(squares, 1) / inputs + eps)


@triton.jit
def gemv(
    x,  # bf16 [tokens, heads, inputs], strides x_token and x_head
    weight,  # bf16, or int8 codes: [heads, outputs, inputs]
    scales,  # bf16 [heads, outputs, groups of 32 inputs]; any pointer where not CODED
    norm,  # bf16 [inputs]; any pointer where not NORM
    out,  # bf16 [tokens, heads, outputs]
    tokens,
    outputs,
    inputs,
    x_token,
    x_head,
    eps,
    NORM: tl.constexpr,
    CODED: tl.constexpr,
    TOKENS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PIECE: tl.constexpr,  # inputs of one product: a group where CODED
    PIECES: tl.constexpr,  # products of a step
    STAGES: tl.constexpr,
):
    """OUTPUTS rows of one head's matrix times all tokens."""
    head = tl.program_id(1)
    x += head * x_head
    token, row = tl.arange(0, TOKENS), tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    known, inside = token < tokens, row < outputs
    line = head.to(tl.int64) * outputs + row
    if NORM:
        inverse = _inverse(x, x_token, tokens, inputs, eps, TOKENS, PIECE * PIECES)
    total = tl.zeros([OUTPUTS, TOKENS], tl.float32)
    for at in tl.range(0, inputs, PIECE * PIECES, num_stages=STAGES):
        if CODED:
            groups, group = (inputs + PIECE - 1) // PIECE, at // PIECE + tl.arange(0, PIECES)
            source = scales + line[:, None] * groups + group[None, :]
            scale = tl.load(source, mask=inside[:, None] & (group < groups)[None, :], other=0.0)
            scale = scale.to(tl.float32)  # [OUTPUTS, PIECES]
        for piece in tl.static_range(PIECES):
            column = at + piece * PIECE + tl.arange(0, PIECE)
            there = column < inputs
            source = x + token[:, None] * x_token + column[None, :]
            value = tl.load(source, mask=known[:, None] & there[None, :], other=0.0)
            if NORM:
                factor = tl.load(norm + column, mask=there, other=0.0).to(tl.float32)
                value = (value.to(tl.float32) * inverse[:, None]).to(x.dtype.element_ty)
                value = (value.to(tl.float32) * factor[None, :]).to(x.dtype.element_ty)
            source = weight + line[:, None] * inputs + column[None, :]
            w = tl.load(source, mask=inside[:, None] & there[None, :], other=0)
            if CODED:
                part = tl.dot(w.to(x.dtype.element_ty), tl.trans(value))
                own = tl.where(tl.arange(0, PIECES)[None, :] == piece, scale, 0.0)
                total += part * tl.sum(own, 1)[:, None]
            else:
                total = tl.dot(w, tl.trans(value), total)
    target = out + (token[None, :] * tl.num_programs(1) + head) * outputs + row[:, None]
    tl.store(target, total.to(out.dtype.element_ty), mask=inside[:, None] & known[None, :])
