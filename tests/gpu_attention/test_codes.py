"""int8 weights of a torch device are the CPU's, bit for bit."""

import numpy as np
import pytest
import torch

from hybrid.cpu_dense.tiles import widened
from hybrid.gpu_attention import codes
from hybrid.gpu_attention.codes import GROUP, decode, encode
from tests.cpu_dense.test_codes import normal, stored
from tests.reference import int8_weights


def as_torch(bits: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(bits.view(np.int16).copy()).view(torch.bfloat16)


def padded(weight: codes.Int8Weight) -> tuple[np.ndarray, np.ndarray]:
    """As `stored` shows them: codes [rows, groups, 32] and scales [rows, groups]."""
    own = torch.nn.functional.pad(weight.codes, (0, -weight.codes.shape[1] % GROUP))
    return own.unflatten(1, (-1, GROUP)).numpy(), weight.scales.float().numpy()


@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (40, 70), (1, 1), (33, 128), (64, 700)])
@pytest.mark.parametrize("magnitude", [1e-38, 1e-30, 1.0, 1e30])
def test_codes_and_scales_are_the_cpus(rows, columns, magnitude):
    with np.errstate(under="ignore"):
        weight = as_torch(normal(rows, columns)).double() * magnitude
    bits = weight.bfloat16().view(torch.int16).numpy().view(np.uint16)
    for own, cpu in zip(padded(encode(as_torch(bits))), stored(bits), strict=True):
        assert np.array_equal(own, cpu)


def test_zeros_and_what_is_not_finite():
    bits = normal(20, 96)
    bits[3, :32] = 0
    bits[5, 40] = 0x7F80
    bits[7, 1] = 0xFFC1
    for own, cpu in zip(padded(encode(as_torch(bits))), stored(bits), strict=True):
        assert np.array_equal(own, cpu, equal_nan=True)


def test_heads_that_lie_transposed():
    """As W_UK is taken out of kv_b: each head along its own inputs."""
    bits = normal(6 * 24, 40)
    heads = as_torch(bits).unflatten(0, (6, 24)).transpose(1, 2)  # [6, 40, 24]
    own = encode(heads)
    for head in range(6):
        cpu = stored(bits[24 * head : 24 * head + 24].T)
        one = codes.Int8Weight(own.codes.select(0, head), own.scales.select(0, head))
        for ours, theirs in zip(padded(one), cpu, strict=True):
            assert np.array_equal(ours, theirs)


def test_blocks_of_rows_are_coded_alike(monkeypatch):
    weight = as_torch(normal(50, 70))
    whole = encode(weight)
    monkeypatch.setattr(codes, "CODED_AT_ONCE", 7 * 70)
    parts = encode(weight)
    assert torch.equal(whole.codes, parts.codes)
    assert torch.equal(whole.scales, parts.scales)


def test_decoded_values_are_the_references():
    bits = normal(40, 70)
    exact = int8_weights.decoded(widened(bits).astype(np.float64))
    assert np.array_equal(decode(encode(as_torch(bits)), torch.float64).numpy(), exact)
    assert np.array_equal(decode(encode(as_torch(bits)), torch.float32).numpy(), exact)


def test_a_scale_rounded_to_nearest_is_seen(monkeypatch):
    bits = normal(40, 70)
    monkeypatch.setattr(codes, "_scales", lambda largest: (largest / 127).bfloat16())
    assert not np.array_equal(padded(encode(as_torch(bits)))[1], stored(bits)[1])
