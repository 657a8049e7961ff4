"""Size and grid of pictures: the table of spec §6.1, its extremes, and other people's rule."""

import ast
import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.resize import Fit, fit
from tests.reference.image_patches import resized

IMAGE, FRAME = PUBLISHED.in_patch_limit, PUBLISHED.in_patch_limit_each_frame
SIDES = st.integers(1, 65535)
LIMITS = st.sampled_from([1, 4, 100, FRAME, IMAGE])

# width, height, then for an image and a frame: grid h x w where the spec gives it, tokens
TABLE = [
    (1, 1, (2, 2), 1, None, 1),
    (14, 14, (2, 2), 1, None, 1),
    (28, 28, (2, 2), 1, None, 1),
    (17, 64, (6, 2), 3, None, 3),
    (100, 100, (8, 8), 16, None, 16),
    (224, 224, (16, 16), 64, None, 64),
    (640, 480, (36, 46), 414, None, 414),
    (1024, 768, (56, 74), 1036, None, 1036),
    (1280, 720, (52, 92), 1196, (50, 86), 1075),
    (1920, 1080, (78, 138), 2691, (48, 86), 1032),
    (2048, 1365, (98, 148), 3626, None, None),
    (2560, 1440, (98, 172), 4214, None, 1075),
    (3000, 3000, (130, 130), 4225, (66, 66), 1089),
    (3840, 2160, (98, 172), 4214, None, 1032),
    (5000, 6000, (142, 118), 4189, None, None),
    (8000, 6000, (112, 148), 4144, None, 1036),
    (20000, 100, (4, 512), 512, None, 512),
]
RESIZED = [
    (2560, 1440, IMAGE, 2404, 1352),
    (3000, 3000, IMAGE, 1794, 1794),
    (3840, 2160, IMAGE, 2392, 1345),
    (5000, 6000, IMAGE, 1637, 1964),
    (8000, 6000, IMAGE, 2071, 1553),
    (20000, 100, IMAGE, 7168, 35),
    (1280, 720, FRAME, 1202, 676),
    (1920, 1080, FRAME, 1196, 672),
    (3000, 3000, FRAME, 897, 897),
]


@pytest.mark.parametrize(("width", "height", "image", "tokens", "frame", "frame_tokens"), TABLE)
def test_a_row_of_the_table(width, height, image, tokens, frame, frame_tokens):
    fitted = fit(width, height, IMAGE, PUBLISHED)
    assert ((fitted.grid_h, fitted.grid_w), fitted.tokens) == (image, tokens)
    fitted = fit(width, height, FRAME, PUBLISHED)
    assert frame is None or (fitted.grid_h, fitted.grid_w) == frame
    assert frame_tokens is None or fitted.tokens == frame_tokens


@pytest.mark.parametrize(("width", "height", "limit", "new_width", "new_height"), RESIZED)
def test_a_size_before_padding(width, height, limit, new_width, new_height):
    fitted = fit(width, height, limit, PUBLISHED)
    assert (fitted.width, fitted.height) == (new_width, new_height)


@pytest.mark.parametrize(
    ("limit", "most", "width", "height"),
    [(IMAGE, 4464, 489, 7083), (FRAME, 1338, 153, 6731)],
)
def test_no_size_takes_more_tokens_than_the_worst(limit, most, width, height):
    assert fit(width, height, limit, PUBLISHED).tokens == most
    heights = np.arange(1, 10000)
    assert max(_tokens(narrow, heights, limit).max() for narrow in range(1, 1000)) == most


def test_the_enumeration_counts_as_fit_does():
    heights = np.arange(1, 10000, 37)
    for width in (1, 27, 28, 489, 1999, 9999):
        fitted = [fit(width, int(height), IMAGE, PUBLISHED).tokens for height in heights]
        assert _tokens(width, heights, IMAGE).tolist() == fitted


def _tokens(width, heights, limit):
    """Of many heights at once."""
    patches = max(1, width // 14) * np.maximum(1, heights // 14)
    scale = np.minimum(np.minimum(1, np.sqrt(limit / patches)), 7168 / width)
    scale = np.minimum(scale, 7168 / heights)
    new = [np.clip((size * scale).astype(int), 1, 7168) for size in (width, heights)]
    return -(-new[0] // 28) * -(-new[1] // 28)


@given(SIDES, SIDES, LIMITS)
def test_what_holds_for_every_size(width, height, limit):
    fitted = fit(width, height, limit, PUBLISHED)
    assert (fitted.width, fitted.height) == resized(width, height, limit)
    for before, after, grid in (
        (width, fitted.width, fitted.grid_w),
        (height, fitted.height, fitted.grid_h),
    ):
        assert 1 <= after <= min(before, 512 * 14)  # never enlarged
        assert grid % 2 == 0
        assert 0 <= grid * 14 - after < 28  # as little padding as there can be
        assert grid <= 512


@given(SIDES, SIDES, LIMITS)
def test_the_area_is_bounded_by_the_limit(width, height, limit):
    """w h <= W H s^2 <= L (W / max(1, W div 14)) (H / max(1, H div 14)), each quotient below 28.

    Slivers, which stay one pixel wide, are bounded by their longer side.
    """
    fitted = fit(width, height, limit, PUBLISHED)
    if min(fitted.width, fitted.height) > 1:
        assert fitted.width * fitted.height < limit * 28**2


@given(SIDES, SIDES, LIMITS)
def test_a_turned_picture_gets_the_turned_grid(width, height, limit):
    fitted, turned = fit(width, height, limit, PUBLISHED), fit(height, width, limit, PUBLISHED)
    assert turned == Fit(fitted.height, fitted.width, fitted.grid_w, fitted.grid_h)


def test_the_limits_are_those_of_the_configuration():
    config = replace(PUBLISHED, patch_limit_on_one_side=10)
    assert fit(20000, 100, IMAGE, config) == Fit(140, 1, 2, 10)
    assert fit(280, 280, 100, replace(PUBLISHED, patch_size=7)) == Fit(70, 70, 10, 10)


def _scaled(width, height, limit, *, by=math.sqrt, cap=1.0, rounded=int, side=7168):
    patches = max(1, width // 14) * max(1, height // 14)
    scale = min(cap, by(limit / patches), side / width, side / height)
    new = [max(1, rounded(size * scale)) for size in (width, height)]
    return -(-new[0] // 28) * -(-new[1] // 28)


@pytest.mark.parametrize(
    "fault",
    [
        {"by": float},  # area for length
        {"cap": 2.0},  # enlarges
        {"rounded": math.ceil},
        {"rounded": round},
        {"side": 1 << 20},  # no limit on one side
    ],
    ids=["no root", "enlarges", "ceil", "round", "no side limit"],
)
def test_the_table_catches(fault):
    rows = [(w, h, tokens) for w, h, _, tokens, _, _ in TABLE]
    assert all(_scaled(w, h, IMAGE) == tokens for w, h, tokens in rows)
    caught = any(_scaled(w, h, IMAGE, **fault) != tokens for w, h, tokens in rows)
    frames = [(w, h, tokens) for w, h, _, _, _, tokens in TABLE if tokens]
    assert caught or any(_scaled(w, h, FRAME, **fault) != tokens for w, h, tokens in frames)


@pytest.mark.oracle
def test_transformers_rule_gives_the_same_sizes():
    """Its processor needs torchvision; its rule is one function of plain Python."""
    rule = _function_of_transformers("navit_resize")
    random = np.random.default_rng(6)
    sizes = np.exp(random.uniform(0, math.log(65535), (4000, 2))).astype(int)
    for width, height in [*sizes.tolist(), *((w, h) for w, h, *_ in TABLE)]:
        for limit in (IMAGE, FRAME):
            (new_height, new_width), (padded_h, padded_w) = rule(height, width, 14, 2, limit, 512)
            expected = Fit(new_width, new_height, padded_h // 14, padded_w // 14)
            assert fit(width, height, limit, PUBLISHED) == expected


def _function_of_transformers(name):
    package = Path(importlib.util.find_spec("transformers").origin).parent
    file = package / "models" / "kimi_k25" / "image_processing_kimi_k25.py"
    body = ast.parse(file.read_text("utf-8")).body
    found = next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == name)
    names = {"math": math}
    exec(compile(ast.Module([found], []), str(file), "exec"), names)
    return names[name]
