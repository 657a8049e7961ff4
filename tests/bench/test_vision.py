"""The pure parts of bench/vision.py: work counted, rows summarised, weights of the right shapes."""

import argparse
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
import vision
from PIL import Image

from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.tower import Tower

SMALL = replace(
    vision.FULL, vt_hidden_size=24, vt_intermediate_size=40, vt_num_hidden_layers=2,
    vt_num_attention_heads=2,
)  # fmt: skip


class Counted(torch.overrides.TorchFunctionMode):
    """Adds up the arithmetic of the products that are really made."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.linear:
            self.flops += 2 * args[0].numel() * args[1].shape[0]
        elif func is torch.nn.functional.scaled_dot_product_attention:
            q, k = args[:2]
            self.flops += 4 * q.numel() * k.shape[-2]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("grid", [(1, 2, 2), (1, 16, 18), (3, 10, 12)])
def test_the_work_is_what_the_tower_does(grid):
    tower = Tower(SMALL, PUBLISHED, 32, vision.RandomWeights(SMALL, 32), torch.float32, 1)
    with Counted() as counted:
        tower.features([vision.item(grid)])
    assert counted.flops == vision.flops(SMALL, 32, grid)


def test_the_work_at_full_size():
    """From the parameter counts of spec §2.3, norms, biases and positions left out."""
    biases = 27 * (4 * 1152 + 3456 + 1152 + 4304 + 1152) + 1152 + 2 * 1152 + 64 * 64 * 1152
    projector = 54_277_888 - 2 * 1152 - 4608 - 7168
    grid = (1, 56, 74)
    linear = 2 * 4144 * (416_866_032 - biases) + 2 * 1036 * projector
    assert vision.flops(vision.FULL, 7168, grid) == linear + 27 * 4 * 4144**2 * 1152


def test_random_weights_are_the_whole_checkpoint():
    shapes = vision.RandomWeights(vision.FULL, 7168).shapes
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    assert sum(sizes.values()) == 416_866_032 + 54_277_888  # spec §2.3


def test_a_row_is_of_medians_and_of_shares_in_the_same_round():
    work = vision.flops(vision.FULL, vision.HIDDEN, (2, 4, 6))
    row = vision.tower_row((2, 4, 6), [(1.0, 2 * work), (4.0, work), (2.0, work / 2)])
    assert (row.grid, row.patches, row.tokens) == ("2x4x6", 48, 6)
    assert row.seconds == 2.0
    assert row.s_per_1000 == round(2000 / 48, 3)
    assert row.gflop_s == round(work / 2e9, 1)
    assert row.ceiling == round(work / 1e9, 1)
    assert row.of_ceiling == 0.5  # 0.5, 0.25, 1


@pytest.mark.parametrize(
    ("text", "grid"), [("56x74", (1, 56, 74)), ("4x2x6", (4, 2, 6)), ("2x2", (1, 2, 2))]
)
def test_grids_are_read(text, grid):
    assert vision.parse_grid(text) == grid


@pytest.mark.parametrize("text", ["", "56", "3x4", "4x5", "0x2", "2x0x2", "1x2x2x2", "axb", "-2x2"])
def test_other_grids_are_refused(text):
    with pytest.raises((argparse.ArgumentTypeError, ValueError)):
        vision.parse_grid(text)


def test_a_photo_is_a_photo():
    picture = Image.open(io.BytesIO(vision.photo(320, 240)))
    assert (picture.format, picture.size, picture.mode) == ("JPEG", (320, 240), "RGB")
    values = np.asarray(picture)
    assert values.std() > 20
    assert set(vision.photo_ms(vision.photo(64, 48), 2)) == {
        "all", "decode", "resize, cut", "digest",
    }  # fmt: skip
