"""The device's attention, products and router against float64, within what rounding explains."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hybrid.doctor.check import Check, bad, good
from hybrid.doctor.selftest import bounds
from hybrid.gpu_attention import ops, plain
from hybrid.gpu_attention.codes import encode
from hybrid.gpu_attention.kv_cache import PAGE
from hybrid.gpu_attention.layers import rms_norm

REPORT = "use --device cpu, and report card, driver and torch"
EPS = 1e-6
SCALE, SCALING, PER_TOKEN = 0.1446, 2.827, 8
TOKENS = (1, 3, 8)
LENGTHS = (1, 64, 65, 1000)  # positions that the cache holds


@dataclass(frozen=True, slots=True)
class Sizes:
    """Those that the operations depend on."""

    hidden: int = 7168  # K2.5's
    outputs: int = 2112
    routed: int = 384
    heads: int = 64
    rank: int = 512
    rope: int = 64
    nope: int = 128


TRUE = Sizes()
Distance = Callable[[torch.device, Sizes, int], float]  # by tokens: 1 is as far as rounding may go


def check_backbone(device: torch.device, sizes: Sizes = TRUE) -> list[Check]:
    """One check for each operation of ops.py."""
    checks: dict[str, Distance] = {
        "products bf16": partial(_product, coded=False),
        "products int8": partial(_product, coded=True),
        "products by head": _per_head,
        "attention": _attention,
    }
    found = [_check(name, far, device, sizes) for name, far in checks.items()]
    return [*found, _router(device, sizes)]


def _check(name: str, distance: Distance, device: torch.device, sizes: Sizes) -> Check:
    worst = max(distance(device, sizes, tokens) for tokens in TOKENS)
    if not worst <= 1:  # NaN is no result either
        return bad(name, f"{worst:.3g} times as far from exact as rounding may go", REPORT)
    return good(name, f"{worst:.2f} of what rounding may change")


def _product(device: torch.device, sizes: Sizes, tokens: int, *, coded: bool) -> float:
    """RMSNorm and q_a with kv_a."""
    x, norm = random(tokens, sizes.hidden), 1 + 0.1 * random(sizes.hidden, seed=1)
    weight = random(sizes.outputs, sizes.hidden, seed=2) / math.sqrt(sizes.hidden)
    stored = encode(weight) if coded else None
    codes, scales = (stored.codes, stored.scales) if stored else (weight.double(), None)
    hidden = rms_norm(x, norm, EPS)
    exact = plain.linear(hidden.double(), codes, scales, None, 0.0)
    matrix = weight.double()
    limit = bounds.product(hidden.double(), matrix, exact) + bounds.norm(x, norm, EPS, matrix)
    there = encode(weight.to(device)) if coded else weight.to(device)
    return _worst(ops.norm_linear(x.to(device), norm.to(device), EPS, there), exact, limit)


def _per_head(device: torch.device, sizes: Sizes, tokens: int) -> float:
    """kv_b of the queries' side."""
    x = random(tokens, sizes.heads, sizes.nope)
    weight = random(sizes.heads, sizes.rank, sizes.nope, seed=1)
    exact = plain.per_head(x.double(), weight.double(), None)
    by_head = x.double().transpose(0, 1), weight.double(), exact.transpose(0, 1)
    limit = bounds.product(*by_head).transpose(0, 1)
    return _worst(ops.per_head(x.to(device), weight.to(device)), exact, limit)


def _attention(device: torch.device, sizes: Sizes, tokens: int) -> float:
    return max(_attend(device, sizes, tokens, length) for length in LENGTHS if length >= tokens)


def _attend(device: torch.device, sizes: Sizes, tokens: int, length: int) -> float:
    """Over shuffled pages; what is not in use is NaN."""
    count, width = -(-length // PAGE) + 2, sizes.rank + sizes.rope
    table = torch.randperm(count, generator=torch.Generator().manual_seed(length)).int()
    rows = torch.full((count * PAGE, width), torch.nan, dtype=torch.bfloat16)
    rows[:length] = random(length, width, seed=1)
    pages = torch.empty(count, PAGE, width, dtype=torch.bfloat16)
    pages[table.long()] = rows.view(count, PAGE, -1)
    query, start = random(tokens, sizes.heads, width), length - tokens
    used = rows[:length].double()
    exact, limit = bounds.attention(query.double(), used, start, SCALE, sizes.rank)
    first = torch.tensor([start], dtype=torch.int32)
    there = [each.to(device) for each in (query, pages, table, first)]
    got = ops.mla_decode(there[0], there[1], there[2], there[3], SCALE, sizes.rank)
    return _worst(got, exact, limit)


def _router(device: torch.device, sizes: Sizes) -> Check:
    """The same experts where scores differ by more than fp32 sums may; their weights close by."""
    wrong = 0
    for tokens in TOKENS:
        hidden = random(tokens, sizes.hidden)
        gate = random(sizes.routed, sizes.hidden, seed=1).float() / math.sqrt(sizes.hidden)
        bias = 0.01 * random(sizes.routed, seed=2).float()
        ids, weights = ops.route(
            hidden.to(device), gate.to(device), bias.to(device), PER_TOKEN, True, SCALING
        )
        scores = torch.sigmoid(hidden.double() @ gate.double().T)
        off = (sizes.hidden + 8) * bounds.ADDED * (hidden.double().abs() @ gate.double().abs().T)
        wrong += _wrong_picks(ids.cpu().long(), weights.cpu().double(), scores, bias.double(), off)
    if wrong:
        return bad("router", f"{wrong} tokens went to other experts, or with other weights", REPORT)
    return good("router", f"the right experts and weights for {sum(TOKENS)} tokens")


def _wrong_picks(ids: Tensor, weights: Tensor, scores: Tensor, bias: Tensor, off: Tensor) -> int:
    """Tokens with a pick that is worse than one left out, or a weight that is another."""
    ranked = scores + bias
    picked = torch.zeros_like(ranked, dtype=torch.bool).scatter_(1, ids, True)
    worst = (ranked + off).masked_fill(~picked, math.inf).amin(1)
    best = (ranked - off).masked_fill(picked, -math.inf).amax(1)
    own = scores.gather(1, ids)
    exact = SCALING * own / own.sum(1, keepdim=True)
    near = (weights - exact).abs() <= exact * (2 * off.gather(1, ids).amax() + 32 * bounds.ADDED)
    return int(((picked.sum(1) != PER_TOKEN) | (worst < best) | ~near.all(1)).sum())


def _worst(got: Tensor, exact: Tensor, limit: Tensor) -> float:
    """The largest distance in units of the limit; infinity where something is NaN."""
    return float(((got.cpu().double() - exact).abs() / limit).nan_to_num(math.inf).max())


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in bf16."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()
