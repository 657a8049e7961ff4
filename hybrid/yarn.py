"""Rotary positions with YaRN: frequencies, tables and the softmax scale that goes with them.

Pair i of a rotated vector is (x[2i], x[2i+1]): adjacent pairs, not halves. Between `low` and `high`
frequencies blend from the trained ones (fast pairs) to ones divided by `factor` (slow pairs), at
every position alike. Peng et al., "YaRN" (arXiv 2309.00071); spec §3.2-3.3.
"""

import math

import numpy as np
from numpy.typing import NDArray

from hybrid.config import RopeScaling, TextConfig


def inv_freq(text: TextConfig) -> NDArray[np.float32]:
    """Radians per position of each pair: [qk_rope_head_dim / 2]."""
    pair = np.arange(text.qk_rope_head_dim // 2)
    trained = text.rope_theta ** (-2.0 * pair / text.qk_rope_head_dim)
    if (yarn := text.rope_scaling) is None:
        return trained.astype(np.float32)
    low, high = _blend_range(yarn, text)
    stretched = np.clip((pair - low) / max(high - low, 0.001), 0.0, 1.0)
    return (trained / yarn.factor * stretched + trained * (1 - stretched)).astype(np.float32)


def cos_sin(
    text: TextConfig, start: int, count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines of positions start…start+count-1: two of [count, qk_rope_head_dim / 2].

    Angles are fp32 products, as in training; in fp64 they would drift from it at long positions.
    """
    position = np.arange(start, start + count, dtype=np.float32)
    angle = position[:, None] * inv_freq(text)[None, :]  # [count, pairs]
    ratio = np.float32(_table_scale(text.rope_scaling))
    return np.cos(angle) * ratio, np.sin(angle) * ratio


def softmax_scale(text: TextConfig) -> float:
    """qk_head_dim^-1/2 times the square of YaRN's attention factor (0.14468 for K2.5)."""
    scale = 1 / math.sqrt(text.qk_nope_head_dim + text.qk_rope_head_dim)
    if (yarn := text.rope_scaling) is None or not yarn.mscale_all_dim:
        return scale
    return scale * _mscale(yarn.factor, yarn.mscale_all_dim) ** 2


def _blend_range(yarn: RopeScaling, text: TextConfig) -> tuple[int, int]:
    """First pair that is stretched at all, and first that is stretched fully."""

    def pair_turning(turns: float) -> float:
        length = yarn.original_max_position_embeddings / (2 * math.pi * turns)
        return text.qk_rope_head_dim * math.log(length) / (2 * math.log(text.rope_theta))

    low = max(math.floor(pair_turning(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_turning(yarn.beta_slow)), text.qk_rope_head_dim - 1)
    return low, high


def _table_scale(yarn: RopeScaling | None) -> float:
    """What multiplies cos and sin; 1.0 wherever mscale equals mscale_all_dim."""
    if yarn is None:
        return 1.0
    if yarn.mscale and yarn.mscale_all_dim:
        return _mscale(yarn.factor, yarn.mscale) / _mscale(yarn.factor, yarn.mscale_all_dim)
    return _mscale(yarn.factor, 1.0)


def _mscale(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0
