"""Layers, requests and what the CPU's kernels say about them: what all tests here compare with."""

from dataclasses import dataclass

import numpy as np

from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.record import RecordShape
from tests.reference.experts import Matrix, quantise, random_expert, round_bf16, silu

MODES = "int8", "int16", "bf16"


@dataclass(frozen=True)
class Case:
    shape: RecordShape
    records: np.ndarray  # uint8 [slots, nbytes]
    x: np.ndarray  # f32 [T, hidden]
    ids: np.ndarray  # int32 [T, k]
    weights: np.ndarray  # f32 [T, k]
    outputs: np.ndarray  # f32 [T * k, hidden]: the CPU's; rows of -1 are UNTOUCHED
    combined: np.ndarray  # f32 [T, hidden]: the CPU's


UNTOUCHED = np.float32(-7.25)


def case(mode, hidden, intermediate, tokens, k, *, seed=0, experts=5, x=None, make=random_expert):
    """Random experts, random ids with some -1 and some twice, and the CPU's answer."""
    rng = np.random.default_rng(seed)
    layer = ExpertLayer(experts, hidden, intermediate, isa="portable", threads=1, activation=mode)
    for e in range(experts):
        layer.set_expert(e, **make(rng, hidden, intermediate).tensors)
    if x is None:
        x = rng.normal(scale=3, size=(tokens, hidden)).astype(np.float32)
    ids = rng.integers(-1, experts, (tokens, k)).astype(np.int32)
    weights = rng.uniform(0.05, 1, (tokens, k)).astype(np.float32)
    outputs = np.full((tokens * k, hidden), UNTOUCHED)
    layer.outputs(x, ids, outputs)
    combined = layer.combine(outputs, ids, weights)
    return Case(layer.shape, layer.records, x, ids, weights, outputs, combined)


def special_rows(hidden):
    """Rows f32 [10, hidden] that are not ordinary: see cpu_experts/numerics.py."""
    x = np.random.default_rng(3).normal(size=(10, hidden)).astype(np.float32)
    x[0] = 0
    x[1, :32] = 0  # one group of zeros
    x[2, 3], x[3, 5], x[4, 7] = np.nan, np.inf, -np.inf
    x[5] = np.float32(1e-45) * np.arange(hidden) % 200  # subnormal, and scales of zero
    x[6, :32] = np.float32(1e-45) * 190  # a subnormal scale: the quotient is over 127
    x[7] *= np.float32(1e30)  # gates of +-inf or far beyond +-87
    x[8] = -0.0
    x[9, 0] = np.float32(3.4e38)
    return x


def extreme_expert(rng, hidden, intermediate):
    """Nibbles that are all -8 in one matrix and all 7 in another; scales of great range."""
    expert = random_expert(rng, hidden, intermediate)
    low = np.zeros_like(expert.up.packed)  # nibble 0 is -8
    high = np.full_like(expert.down.packed, -1)  # nibble 15 is 7
    scale = (2.0 ** rng.integers(-130, 8, expert.gate.scale.shape)).astype(np.float32)
    scale = (scale.view(np.uint32) >> 16).astype(np.uint16)  # some are subnormal
    gate = Matrix(expert.gate.packed, scale)
    return type(expert)(gate, Matrix(low, expert.up.scale), Matrix(high, expert.down.scale))


def differing(got, want):
    """How many float32 differ in a bit; one NaN is like another: payloads are not defined."""
    same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    return int(np.count_nonzero(~same))


def values():
    """f32 [1024, 32]: of every magnitude, ordinary and not."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1024, 32)) * 10.0 ** rng.integers(-46, 39, (1024, 1))
    x[512:] = rng.uniform(-100, 100, (512, 32))
    with np.errstate(over="ignore", under="ignore"):
        x = x.astype(np.float32)
    x[:10] = special_rows(32)
    x[10:40] = ((x[10:40].view(np.uint32) & 0xFFFF0000) | 0x8000).view(np.float32)  # ties of bf16
    return x


def expected(x, mode):
    """(silu, rounded to bf16, codes, scales) of x f32 [n, 32] by the reference."""
    codes, scales = quantise(x, mode)
    return silu(x), round_bf16(x), codes, scales


def differences(found, want):
    """How many numbers of each result differ; codes are compared as integers."""
    pairs = [(f.reshape(-1), w.reshape(-1)) for f, w in zip(found, want, strict=True)]
    return [
        int(np.count_nonzero(f != w)) if f.dtype.kind == "i" else differing(f, w) for f, w in pairs
    ]
