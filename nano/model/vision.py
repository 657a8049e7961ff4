"""MoonViT-3D and its projector with gradients (spec §3.6); positions are the runtime's own tables.

Items of one grid go through together as [items, patches, D]. Two are alike only in their grid, so
the table of positions is resampled once a group.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hybrid.config import VisionConfig
from hybrid.vision import positions
from hybrid.vision.block import NORM_EPS
from hybrid.vision.media import Item
from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.patches import normalised
from nano.model.attention import turned
from nano.model.parameters import Parameters

Grid = tuple[int, int, int]


def features(vision: VisionConfig, p: Parameters, items: Sequence[Item]) -> list[Tensor]:
    """Rows [tokens, hidden] of each item, in order."""
    groups: dict[Grid, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        groups[item.grid].append(index)
    found: dict[int, Tensor] = {}
    for grid, indices in groups.items():
        rows = _group(vision, p, grid, [items[index] for index in indices])
        found |= dict(zip(indices, rows, strict=True))
    return [found[index] for index in range(len(items))]


def _group(vision: VisionConfig, p: Parameters, grid: Grid, items: Sequence[Item]) -> Tensor:
    """Rows [items, tokens, hidden] of items of one grid."""
    t, h, w = grid
    pixels = np.stack([normalised(item.patches, PUBLISHED) for item in items])
    embed = p["vision_tower.patch_embed.proj.weight"].flatten(1)
    x = functional.linear(
        torch.from_numpy(pixels), embed, p["vision_tower.patch_embed.proj.bias"]
    )  # [items, t * h * w, D]
    place = positions.table(p["vision_tower.patch_embed.pos_emb.weight"], h, w)  # [h * w, D]
    place = place.repeat(t, 1)
    if t > 1:
        waves = positions.temporal(t, vision.vt_hidden_size)
        place = place + waves.repeat_interleave(h * w, dim=0)
    x = x + place
    size = vision.vt_hidden_size // vision.vt_num_attention_heads
    turn = positions.rotary(h, w, size).repeat(t, 1)
    for index in range(vision.vt_num_hidden_layers):
        x = _block(vision, p, f"vision_tower.encoder.blocks.{index}.", x, turn)
    x = _norm(p, "vision_tower.encoder.final_layernorm", x)
    return _projected(vision, p, _merged(x, grid))


def _block(vision: VisionConfig, p: Parameters, prefix: str, x: Tensor, turn: Tensor) -> Tensor:
    heads = vision.vt_num_attention_heads
    qkv = _linear(p, f"{prefix}wqkv", _norm(p, f"{prefix}norm0", x)).unflatten(-1, (3, heads, -1))
    q, k, v = qkv.unbind(-3)  # [items, n, heads, size]
    q, k = (turned(each, turn[:, None]) for each in (q, k))
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    mixed = functional.scaled_dot_product_attention(q, k, v)
    x = x + _linear(p, f"{prefix}wo", mixed.transpose(1, 2).flatten(2))
    hidden = _linear(p, f"{prefix}mlp.fc0", _norm(p, f"{prefix}norm1", x))
    return x + _linear(p, f"{prefix}mlp.fc1", functional.gelu(hidden, approximate="tanh"))


def _merged(x: Tensor, grid: Grid) -> Tensor:
    """Patches [items, t * h * w, D] as groups [items, tokens, 4, D], averaged over the frames."""
    t, h, w = grid
    still: Tensor = x.unflatten(1, (t, h // 2, 2, w // 2, 2)).mean(1)  # [items, h/2, 2, w/2, 2, D]
    return still.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _projected(vision: VisionConfig, p: Parameters, groups: Tensor) -> Tensor:
    normed = _norm(p, "mm_projector.pre_norm", groups, vision.projector_ln_eps)
    hidden = functional.gelu(_linear(p, "mm_projector.proj.0", normed.flatten(2)))
    return _linear(p, "mm_projector.proj.2", hidden)


def _linear(p: Parameters, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def _norm(p: Parameters, name: str, x: Tensor, eps: float = NORM_EPS) -> Tensor:
    weight = p[f"{name}.weight"]
    return functional.layer_norm(x, weight.shape, weight, p[f"{name}.bias"], eps)
