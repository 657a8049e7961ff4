"""The tower and its projector in float64, one patch, one head and one pixel at a time (spec §3.6).

Weights come under the checkpoint's names. Everything is spelled out and slow; a few hundred patches
of a tiny model take a second.
"""

import math
from collections.abc import Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]


def features(weights: Weights, pixels, grid, heads, *, projector_eps=1e-5) -> np.ndarray:
    """[tokens, hidden_size] of one item; `pixels` are normalised patches [t * h * w, 3 p p]."""
    t, h, w = grid
    x = linear(weights, "vision_tower.patch_embed.proj", pixels)
    places = resampled(weights["vision_tower.patch_embed.pos_emb.weight"].astype(np.float64), h, w)
    x = x + np.tile(places.reshape(h * w, -1), (t, 1))
    if t > 1:
        x = x + np.repeat(waves(t, x.shape[1]), h * w, axis=0)
    angles = np.tile(turns(h, w, x.shape[1] // heads), (t, 1))
    index = 0
    while f"vision_tower.encoder.blocks.{index}.wqkv.weight" in weights:
        x = block(weights, f"vision_tower.encoder.blocks.{index}.", x, angles, heads)
        index += 1
    x = norm(weights, "vision_tower.encoder.final_layernorm", x, 1e-5)
    groups = merged(x, grid)
    groups = norm(weights, "mm_projector.pre_norm", groups, projector_eps)
    hidden = linear(weights, "mm_projector.proj.0", groups.reshape(len(groups), -1))
    hidden = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return linear(weights, "mm_projector.proj.2", hidden)


def block(weights: Weights, prefix, x, angles, heads) -> np.ndarray:
    """One pre-LN block over the rows of one item."""
    size = x.shape[1] // heads
    qkv = linear(weights, f"{prefix}wqkv", norm(weights, f"{prefix}norm0", x, 1e-5))
    q, k, v = np.split(qkv, 3, axis=1)
    attended = np.empty_like(x)
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        scores = turned(q[:, own], angles) @ turned(k[:, own], angles).T / math.sqrt(size)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        attended[:, own] = odds / odds.sum(axis=1, keepdims=True) @ v[:, own]
    x = x + linear(weights, f"{prefix}wo", attended)
    hidden = linear(weights, f"{prefix}mlp.fc0", norm(weights, f"{prefix}norm1", x, 1e-5))
    inner = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
    return x + linear(weights, f"{prefix}mlp.fc1", 0.5 * hidden * (1 + np.tanh(inner)))


def linear(weights: Weights, name, x) -> np.ndarray:
    """W x + b; a convolution's weight is flattened."""
    weight = weights[f"{name}.weight"].astype(np.float64)
    return x @ weight.reshape(len(weight), -1).T + weights[f"{name}.bias"]


def norm(weights: Weights, name, x, eps) -> np.ndarray:
    """LayerNorm over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return centred / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def resampled_line(line: np.ndarray, count: int) -> np.ndarray:
    """A line of values [n, ...] at `count` places: four neighbours each, borders clamped."""
    n = len(line)
    out = np.zeros((count, *line.shape[1:]))
    for place in range(count):
        source = (place + 0.5) * n / count - 0.5
        for tap in range(math.floor(source) - 1, math.floor(source) + 3):
            out[place] += cubic(source - tap) * line[min(max(tap, 0), n - 1)]
    return out


def resampled(table: np.ndarray, h: int, w: int) -> np.ndarray:
    """The position table [H, W, D] at [h, w, D]."""
    rows = resampled_line(table, h)
    return resampled_line(rows.swapaxes(0, 1), w).swapaxes(0, 1)


def waves(t: int, size: int) -> np.ndarray:
    """[t, size]: what each of several frames adds."""
    out = np.empty((t, size))
    for frame in range(t):
        for i in range(size // 2):
            angle = frame * 10000 ** (-i / (size // 2))
            out[frame, i], out[frame, size // 2 + i] = math.sin(angle), math.cos(angle)
    return out


def turns(h: int, w: int, head_dim: int) -> np.ndarray:
    """Angles [h * w, head_dim / 2] of the adjacent pairs: column, row, column, row, ..."""
    out = np.empty((h, w, head_dim // 2))
    for y in range(h):
        for x in range(w):
            for i in range(head_dim // 4):
                frequency = 10000 ** (-4 * i / head_dim)
                out[y, x, 2 * i], out[y, x, 2 * i + 1] = x * frequency, y * frequency
    return out.reshape(h * w, -1)


def turned(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Adjacent pairs of x [n, head_dim] turned by angles [n, head_dim / 2]."""
    out = np.empty_like(x)
    even, odd, cos, sin = x[:, ::2], x[:, 1::2], np.cos(angles), np.sin(angles)
    out[:, ::2], out[:, 1::2] = even * cos - odd * sin, even * sin + odd * cos
    return out


def merged(x: np.ndarray, grid) -> np.ndarray:
    """Patches [t * h * w, D] as groups [tokens, 4, D]: mean over frames, 2 x 2 together."""
    t, h, w = grid
    still = x.reshape(t, h, w, -1).mean(axis=0)
    return np.array(
        [
            [still[y, x], still[y, x + 1], still[y + 1, x], still[y + 1, x + 1]]
            for y in range(0, h, 2)
            for x in range(0, w, 2)
        ]
    )
