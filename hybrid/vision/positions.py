"""Where a patch is: a learned table for row and column, waves for the frame, angles for attention.

    table     [h * w, D]  added to every frame     learned on a fixed grid, resampled to any other
    temporal  [t, D]      added to each frame      sin | cos of the frame's number
    rotary    [h * w, p]  turns q and k            unit complex numbers, one for each pair

Row f * h * w + y * w + x of an item is the patch in frame f, row y, column x.
"""

import torch
from torch import Tensor
from torch.nn import functional

BASE = 10000.0  # of all waves and angles


def table(weight: Tensor, h: int, w: int) -> Tensor:
    """Resample the learned table [H, W, D] to float32 [h * w, D] (spec §3.6).

    Bicubic with a = -0.75, pixel centres at halves, borders clamped and no antialias even where it
    shrinks; the table's own size is left as it is.
    """
    wide = weight.float()
    if wide.shape[:2] != (h, w):
        planes = wide.permute(2, 0, 1).unsqueeze(0)  # [1, D, H, W]
        resized = functional.interpolate(planes, (h, w), mode="bicubic", align_corners=False)
        wide = resized[0].permute(1, 2, 0)
    return wide.reshape(h * w, -1)


def temporal(t: int, size: int) -> Tensor:
    """What each of t frames adds, float32 [t, size]: all sines, then all cosines (spec §3.6)."""
    half = size // 2
    omega = BASE ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(t, dtype=torch.float64).unsqueeze(1) * omega  # [t, half]
    return torch.cat((angles.sin(), angles.cos()), dim=1).float()


def rotary(h: int, w: int, head_dim: int) -> Tensor:
    """Unit numbers complex64 [h * w, head_dim / 2] that turn adjacent pairs (spec §3.6).

    Pair 2i turns by the column times f_i, pair 2i + 1 by the row times f_i.
    """
    frequencies = BASE ** (-4 * torch.arange(head_dim // 4, dtype=torch.float64) / head_dim)
    places = torch.empty(h, w, 2, dtype=torch.float64)
    places[..., 0] = torch.arange(w)
    places[..., 1] = torch.arange(h).unsqueeze(1)
    angles = (places.unsqueeze(-2) * frequencies.unsqueeze(-1)).flatten(-2)  # [h, w, head_dim / 2]
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64).flatten(0, 1)


def turned(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the adjacent pairs of x [..., 2p] by complex [..., p], in float32, cast back."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)
