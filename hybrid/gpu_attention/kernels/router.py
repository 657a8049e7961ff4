"""The router of a decode step: logits in fp32, then the k best of a token by one program.

    logits   grid (experts / ROWS, tokens): a sum over the inputs in fp32, as the model wants it;
             tensor cores would round to tf32
    select   grid (tokens): sigmoid, bias, k times the largest left; equals by the lower index

torch would take a dozen launches of some microseconds for the second, sixty times a token.

Bytes of K2.5: 11 MB of gate in fp32, read once (a second token finds it in L2).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# ruff: noqa: ANN001, ANN201, ANN202, N803 (Triton reads the source: its types and names are its own)

import triton
import triton.language as tl


@triton.jit
def logits(
    hidden,  # bf16 or fp32 [tokens, inputs], stride hidden_token
    gate,  # fp32 or bf16 [experts, inputs]
    out,  # fp32 [tokens, experts]
    experts,
    inputs,
    hidden_token,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
    STAGES: tl.constexpr,
):
    """A few experts' logits of one token."""
    token, row = tl.program_id(1), tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < experts
    total = tl.zeros([ROWS, STEP], tl.float32)
    for at in tl.range(0, inputs, STEP, num_stages=STAGES):
        column = at + tl.arange(0, STEP)
        there = column < inputs
        x = tl.load(hidden + token * hidden_token + column, mask=there, other=0.0)
        source = gate + row[:, None] * inputs + column[None, :]
        w = tl.load(source, mask=inside[:, None] & there[None, :], other=0.0)
        total += w.to(tl.float32) * x.to(tl.float32)[None, :]
    tl.store(out + token * experts + row, tl.sum(total, 1), mask=inside)


@triton.jit
def _ordered(value):
    """int32 in the order of fp32 values, a NaN as -inf; the least int32 is below all of them."""
    value = tl.where(value == value, value, float("-inf"))
    bits = value.to(tl.int32, bitcast=True)
    return tl.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)


@triton.jit
def select(
    scores,  # fp32 [tokens, experts]: logits
    bias,  # fp32 [experts]
    ids,  # int32 [tokens, K]
    weights,  # fp32 [tokens, K]
    experts,
    scaling,
    K: tl.constexpr,
    NORMALISED: tl.constexpr,
    EXPERTS: tl.constexpr,  # padded to a power of two
    SLOTS: tl.constexpr,  # K padded to a power of two
):
    """The choice of one token."""
    token, expert = tl.program_id(0), tl.arange(0, EXPERTS)
    inside = expert < experts
    logit = tl.load(scores + token * experts + expert, mask=inside, other=0.0)
    score = 1.0 / (1.0 + tl.exp(-logit))
    ranked = _ordered(score + tl.load(bias + expert, mask=inside, other=0.0))
    least = -2147483648
    ranked = tl.where(inside, ranked, least)
    slot = tl.arange(0, SLOTS)
    chosen, total = tl.zeros([SLOTS], tl.float32), 0.0
    for at in tl.static_range(K):
        best = tl.min(tl.where(ranked == tl.max(ranked, 0), expert, EXPERTS), 0)
        own = tl.sum(tl.where(expert == best, score, 0.0), 0)
        tl.store(ids + token * K + at, best)
        ranked = tl.where(expert == best, least, ranked)
        chosen, total = tl.where(slot == at, own, chosen), total + own
    if NORMALISED:
        chosen = chosen / (total + 1e-20)
    tl.store(weights + token * K + slot, chosen * scaling, mask=slot < K)
