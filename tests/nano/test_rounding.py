"""Weights as a checkpoint can hold them."""

import numpy as np
import torch

from nano.export.tensors import packed_words
from nano.model.rounding import bf16, codes, dequantised, int4


def weights(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5)) * 0.1


def test_int4_is_its_codes_times_its_scales():
    values = weights(3, 48, 64)
    code, scale = codes(values)
    assert torch.equal(int4(values), dequantised(code, scale))
    assert code.min() >= -8
    assert code.max() <= 7
    assert torch.equal(scale, scale.bfloat16().float())


def test_the_error_is_at_most_half_a_step():
    """|w| <= amax, and the scale is amax / 7 but for bf16's half unit of 2^-9: the largest code may
    be cut by 7 * 2^-9 of a step, which is less than the half step of rounding."""
    values = weights(16, 64)
    _, scale = codes(values)
    step = scale.repeat_interleave(32, -1)
    assert ((int4(values) - values).abs() <= step * 0.5).all()
    assert not ((int4(values * 1.5) - values).abs() <= step * 0.5).all()


def test_zeros_stay_zeros():
    assert torch.equal(int4(torch.zeros(2, 64)), torch.zeros(2, 64))


def test_rounding_twice_is_rounding_once():
    once = bf16(weights(64))
    assert torch.equal(bf16(once), once)


def test_words_hold_the_nibbles_of_the_published_vector():
    code = torch.tensor([[4, 7, -3, -8, -5, 3, -5, -1]], dtype=torch.int8)  # spec §2.4
    assert packed_words(code).view(np.uint32)[0, 0] == 0x73B305FC
