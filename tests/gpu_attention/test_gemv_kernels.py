"""Products of a decode step as Triton launches them, interpreted, against float64."""

import pytest
import torch

from hybrid.gpu_attention import plain
from hybrid.gpu_attention.codes import encode
from hybrid.gpu_attention.kernels import __name__ as kernels

pytestmark = pytest.mark.triton
HALF_ULP = 2.0**-8  # of bf16, as a part of the value
EPS = 1e-5


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def bound(x, w, exact):
    """Of fp32 sums: each of n exact products is added with a relative error of 2^-23 at most (an
    adder may cut off), an int8 group's sum is scaled and added; then one rounding to bf16.
    """
    terms = x.double().abs() @ w.double().abs().mT
    return (x.shape[-1] + 34) * 2.0**-23 * terms + HALF_ULP * exact.abs()


def norm_spread(x, norm, w, eps):
    """What one more or less ulp before each of the norm's roundings may change: [tokens, out].

    1/sqrt of a sum of n squares is off by at most (n + 8) * 2^-24; a value near a tie rounds to
    the other side.
    """
    wide = x.float()
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    off = (x.shape[-1] + 8) * 2.0**-24
    low, high = ((wide * (inverse * f)).bfloat16() * norm for f in (1 - off, 1 + off))
    return (high - low).double().abs() @ w.double().abs().T


SIZES = [(1, 70, 40), (2, 32, 17), (3, 96, 64), (5, 300, 33), (8, 257, 16)]  # tokens, in, out


@pytest.mark.parametrize(("tokens", "inputs", "outputs"), SIZES)
@pytest.mark.parametrize("coded", [False, True], ids=["bf16", "int8"])
def test_linear(interpreter, tokens, inputs, outputs, coded):
    x, w = random(tokens, inputs), random(outputs, inputs, seed=1)
    weight, scales = (encode(w).codes, encode(w).scales) if coded else (w, None)
    exact = plain.linear(x.double(), weight if coded else w.double(), scales, None, 0.0)
    got = interpreter.ask("linear", x, weight, scales, None, 0.0)
    assert got.dtype == torch.bfloat16
    assert torch.all((got.double() - exact).abs() <= bound(x, w, exact))


@pytest.mark.parametrize("coded", [False, True], ids=["bf16", "int8"])
def test_norm_linear_of_a_slice(interpreter, coded):
    """x is a part of wider rows, as the latents of q are."""
    x = random(4, 300).narrow(1, 30, 200)
    w, norm = random(48, 200, seed=1), random(200, seed=2)
    weight, scales = (encode(w).codes, encode(w).scales) if coded else (w, None)
    hidden = plain.rms_norm(x, norm, EPS).double()
    exact = plain.linear(hidden, weight if coded else w.double(), scales, None, 0.0)
    got = interpreter.ask("linear", x, weight, scales, norm, EPS)
    limit = bound(hidden, w, exact) + norm_spread(x, norm, w, EPS)
    assert torch.all((got.double() - exact).abs() <= limit)


@pytest.mark.parametrize("coded", [False, True], ids=["bf16", "int8"])
@pytest.mark.parametrize(("heads", "inputs", "outputs"), [(1, 32, 16), (3, 24, 20), (5, 128, 48)])
def test_per_head(interpreter, heads, inputs, outputs, coded):
    x = random(3, heads, inputs + 8).narrow(2, 0, inputs)
    w = random(heads, outputs, inputs, seed=1)
    weight, scales = (encode(w).codes, encode(w).scales) if coded else (w, None)
    exact = plain.per_head(x.double(), weight if coded else w.double(), scales)
    got = interpreter.ask("per_head", x, weight, scales)
    limit = bound(x.transpose(0, 1), w, exact.transpose(0, 1)).transpose(0, 1)
    assert torch.all((got.double() - exact).abs() <= limit)


@pytest.mark.parametrize("coded", [False, True], ids=["bf16", "int8"])
def test_a_token_alone_and_among_others_has_the_same_bits(interpreter, coded):
    x, w, norm = random(8, 160), random(40, 160, seed=1), random(160, seed=2)
    weight, scales = (encode(w).codes, encode(w).scales) if coded else (w, None)
    together = interpreter.ask("linear", x, weight, scales, norm, EPS)
    for at in (0, 7):
        alone = interpreter.ask("linear", x.narrow(0, at, 1), weight, scales, norm, EPS)
        assert torch.equal(alone, together.narrow(0, at, 1))


NEXT_ROW = "there = column >= 0\n            source = x"
FAULTS = {
    "the scale of the neighbouring group": ("== piece, scale", "== (piece + 1) % PIECES, scale"),
    "no scale": ("total += part * tl.sum(own, 1)[:, None]", "total += part"),
    "the short last group is none": ("(inputs + PIECE - 1) // PIECE, at", "inputs // PIECE, at"),
    "columns of the next row": ("there = column < inputs\n            source = x", NEXT_ROW),
    "the norm's weight left out": ("* factor[None, :]", ""),
    "no eps": ("/ inputs + eps)", "/ inputs)"),
    "the mean over the tile": ("tl.sum(squares, 1) / inputs", "tl.sum(squares, 1) / STEP"),
    "another token's norm": ("inverse[:, None]", "tl.flip(inverse)[:, None]"),
    "another token's output": ("token[None, :] * tl.num", "(tokens - 1 - token)[None, :] * tl.num"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(interpreter, fault):
    old, new = FAULTS[fault]
    x = random(4, 300).narrow(1, 30, 200) * 0.003  # squares of the size of eps
    w = random(48, 200, seed=1) * torch.logspace(-1, 1, 200).bfloat16()
    norm, coded = random(200, seed=2), encode(w)
    hidden = plain.rms_norm(x, norm, EPS).double()
    exact = plain.linear(hidden, coded.codes, coded.scales, None, 0.0)
    limit = bound(hidden, w, exact) + norm_spread(x, norm, w, EPS)

    def excess(faults):
        got = interpreter.ask("linear", x, coded.codes, coded.scales, norm, EPS, faults=faults)
        return ((got.double() - exact).abs() / limit).nan_to_num(torch.inf).max()

    assert excess([]) <= 1
    assert excess([("gemv", old, new)]) > 2


def test_kernels_are_imported_by_nobody_else():
    """A machine without Triton imports everything but the kernels."""
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import hybrid.gpu_attention.ops, hybrid.gpu_attention.mla\n"
        f"assert not [name for name in sys.modules if name.startswith({kernels!r})]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
