"""The custom operators on the CPU and on shapes alone, and the router's choice."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hybrid.gpu_attention import ops
from hybrid.gpu_attention.codes import encode

BF16 = torch.bfloat16


def arguments() -> dict[str, tuple]:
    x, weight = torch.randn(3, 70).to(BF16), torch.randn(20, 70).to(BF16)
    heads, per_head = torch.randn(3, 5, 70).to(BF16), torch.randn(5, 20, 70).to(BF16)
    coded, coded_heads = encode(weight), encode(per_head)
    pages, table = torch.randn(4, 64, 24).to(BF16), torch.arange(4, dtype=torch.int32)
    start = torch.tensor([130], dtype=torch.int32)
    return {
        "linear": (x, weight, None, None, 0.0),
        "linear_norm_int8": (x, coded.codes, coded.scales, x[0].clone(), 1e-5),
        "per_head": (heads, per_head, None),
        "per_head_int8": (heads, coded_heads.codes, coded_heads.scales),
        "mla_decode": (torch.randn(3, 5, 24).to(BF16), pages, table, start, 0.3, 16),
        "route": (x, torch.randn(12, 70), torch.randn(12), 4, True, 2.5),
    }


def named(name: str):
    for op in ("linear", "per_head", "mla_decode", "route"):
        if name.startswith(op):
            return getattr(torch.ops.kimi_local, op)
    raise KeyError(name)


@pytest.mark.parametrize("name", arguments())
def test_shapes_alone_are_those_of_the_values(name):
    given = arguments()[name]
    torch.library.opcheck(named(name), given, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("name", arguments())
def test_shapes_on_a_device_that_is_not_here(name):
    given = arguments()[name]
    real = named(name)(*given)
    with FakeTensorMode():
        away = [
            torch.empty(each.shape, dtype=each.dtype, device="cuda")
            if isinstance(each, torch.Tensor)
            else each
            for each in given
        ]
        found = named(name)(*away)
    pairs = zip(real, found, strict=True) if isinstance(real, tuple) else [(real, found)]
    for one, other in pairs:
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert other.device.type == "cuda"


def obvious_route(hidden, gate, bias, k, normalised, scaling):
    """Sort all experts of a token by falling score, then by index."""
    ids, weights = [], []
    for x in hidden.double():
        logits = (gate.double() * x).sum(-1).tolist()
        scores = [1 / (1 + math.exp(-logit)) for logit in logits]
        ranked = [score + b for score, b in zip(scores, bias.tolist(), strict=True)]
        ranked = [float("-inf") if value != value else value for value in ranked]
        best = sorted(range(len(ranked)), key=lambda e: (-ranked[e], e))[:k]
        total = sum(scores[e] for e in best) if normalised else 1.0
        ids.append(best)
        weights.append([scores[e] / total * scaling for e in best])
    return torch.tensor(ids, dtype=torch.int32), torch.tensor(weights)


def router_case(seed=0, experts=12, hidden=16):
    """Multiples of 1/8 and 1/64, so that sums are exact, and repeated experts: equal scores."""
    make = torch.Generator().manual_seed(seed)
    x = (torch.randint(-12, 12, (5, hidden), generator=make) / 8).bfloat16()
    gate = (torch.randint(-64, 64, (experts // 2, hidden), generator=make) / 64).repeat(2, 1)
    bias = (torch.randn(experts // 2, generator=make) * 0.1).repeat(2)
    return x, gate, bias


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_choice_is_the_obvious_one(k, normalised):
    x, gate, bias = router_case()
    ids, weights = ops.route(x, gate, bias, k, normalised, 2.5)
    expected_ids, expected = obvious_route(x, gate, bias, k, normalised, 2.5)
    assert torch.equal(ids, expected_ids)
    assert torch.allclose(weights.double(), expected.double(), rtol=1e-5)


@pytest.mark.triton
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("k", "experts", "hidden"), [(1, 12, 16), (8, 12, 70), (5, 30, 40)])
def test_the_kernels_choice_is_too(interpreter, k, experts, hidden, normalised):
    x, gate, bias = router_case(1, experts, hidden)
    ids, weights = interpreter.ask("route", x, gate, bias, k, normalised, 2.5)
    expected_ids, expected = obvious_route(x, gate, bias, k, normalised, 2.5)
    assert torch.equal(ids, expected_ids)
    assert torch.allclose(weights.double(), expected.double(), rtol=1e-5)


def nan_case():
    x, gate, bias = router_case(2)
    bias[3], bias[7], bias[11] = torch.nan, -torch.inf, torch.inf
    return x, gate, bias


@pytest.mark.triton
def test_a_nan_is_below_everything(interpreter):
    x, gate, bias = nan_case()
    for k in (9, 11, 12):
        ids, _ = interpreter.ask("route", x, gate, bias, k, True, 1.0)
        assert torch.equal(ids, obvious_route(x, gate, bias, k, True, 1.0)[0])
        assert torch.equal(ids, ops.route(x, gate, bias, k, True, 1.0)[0])
        assert ids[0].tolist()[0] == 11


BIAS = "tl.load(bias + expert, mask=inside, other=0.0)"
INSIDE = "tl.where(inside, ranked, "
FAULTS = {
    "the higher index of equals": ("expert, EXPERTS), 0)", "-expert, 0), 0) * -1"),
    "the bias weighs": (
        "own = tl.sum(tl.where(expert == best, score",
        f"own = tl.sum(tl.where(expert == best, score + {BIAS}",
    ),
    "no bias": (f"score + {BIAS}", "score"),
    "an expert twice": ("tl.where(expert == best, least, ranked)", "ranked"),
    "a NaN above everything": ('tl.where(value == value, value, float("-inf"))', "value"),
    "padding before experts": (
        "ranked = tl.where(inside, ranked, least)",
        "ranked = tl.where(inside, ranked, 2147483647)",
    ),
    "not divided": ("chosen = chosen / (total + 1e-20)", "chosen = chosen"),
    "not scaled": ("chosen * scaling", "chosen"),
}


@pytest.mark.triton
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_in_the_kernel_is_seen(interpreter, fault):
    x, gate, bias = nan_case() if "NaN" in fault else router_case(1)
    ids, weights = interpreter.ask(
        "route", x, gate, bias, 6, True, 2.5, faults=[("router", *FAULTS[fault])]
    )
    expected_ids, expected = obvious_route(x, gate, bias, 6, True, 2.5)
    same = torch.equal(ids, expected_ids)
    assert not (same and torch.allclose(weights.double(), expected.double(), rtol=1e-5))
