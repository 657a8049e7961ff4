"""Patches and their values against a slow statement, with the classic faults planted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.patches import item_of, normalised, patches
from hybrid.vision.resize import fit
from tests.reference import image_patches as reference

LIMITS = (PUBLISHED.in_patch_limit, 64)
SIZES = [(1, 1), (13, 29), (28, 28), (56, 28), (61, 200), (150, 90), (3, 800)]


def noise(width, height, seed=1):
    """A picture in which no two patches, lines or channels are alike."""
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def both(picture, limit):
    fitted = fit(*picture.size, limit, PUBLISHED)
    return patches(picture, fitted, PUBLISHED), reference.cut(reference.canvas(picture, limit))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_patches_are_those_of_the_slow_statement(size, limit):
    fast, slow = both(noise(*size), limit)
    assert fast.dtype == np.uint8
    assert fast.flags.c_contiguous
    assert np.array_equal(fast, slow.reshape(len(slow), -1))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 120), st.integers(1, 120), st.sampled_from([4, 16, 16384]))
def test_patches_of_any_size_are_those_of_the_slow_statement(width, height, limit):
    fast, slow = both(noise(width, height), limit)
    assert np.array_equal(fast, slow.reshape(len(slow), -1))


def test_values_differ_from_the_exact_ones_by_rounding_only():
    """v/255 is at most 1 and rounds by 2^-25, the difference at most 1/2 and rounds by 2^-26;
    division by 1/2 is exact and doubles both: below 2^-23.
    """
    picture = noise(61, 200)
    fast, _ = both(picture, PUBLISHED.in_patch_limit)
    exact = reference.values(picture, PUBLISHED.in_patch_limit)
    found = normalised(fast, PUBLISHED)
    assert found.dtype == np.float32
    assert np.abs(found - exact.reshape(found.shape)).max() < 2**-23
    assert found.min() == -1  # the padding


@pytest.mark.oracle
def test_values_are_the_bits_that_torch_computes():
    config = PUBLISHED.__class__(
        **{name: getattr(PUBLISHED, name) for name in PUBLISHED.__slots__}
        | {"image_mean": (0.48145466, 0.5, 0.40821073), "image_std": (0.26862954, 0.5, 0.27577711)}
    )
    every = np.tile(np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 3).T, (1, 1))
    rows = np.concatenate([every[c].reshape(-1, 64) for c in range(3)], axis=1)  # [4, 3 * 64]
    planes = torch.from_numpy(rows.reshape(4, 3, 64)).float().div(255)
    mean, std = (torch.tensor(v)[:, None] for v in (config.image_mean, config.image_std))
    expected = planes.sub(mean).div(std).reshape(4, -1).numpy()
    assert np.array_equal(normalised(rows, config), expected)


def test_frames_of_a_chunk_are_stacked_in_order():
    frames = [noise(70, 40, seed) for seed in (1, 2, 3)]
    fitted = fit(70, 40, PUBLISHED.in_patch_limit_each_frame, PUBLISHED)
    item = item_of([patches(frame, fitted, PUBLISHED) for frame in frames], fitted)
    assert item.grid == (3, fitted.grid_h, fitted.grid_w)
    assert item.tokens == fitted.tokens
    for frame, rows in zip(frames, np.split(item.patches, 3), strict=True):
        assert np.array_equal(rows, patches(frame, fitted, PUBLISHED))


def test_a_picture_is_left_as_it_was():
    picture = noise(100, 60)
    before = picture.tobytes()
    patches(picture, fit(100, 60, 8, PUBLISHED), PUBLISHED)
    assert picture.tobytes() == before


def blocks_of_four(rows, grid_h, grid_w):
    """Patches in the order in which the tower merges them."""
    square = rows.reshape(grid_h // 2, 2, grid_w // 2, 2, -1)
    return square.transpose(0, 2, 1, 3, 4).reshape(rows.shape)


def padded_elsewhere(picture, fitted, *, left=False, top=False, value=0):
    size = (fitted.width, fitted.height)
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    right, bottom = fitted.grid_w * 14 - fitted.width, fitted.grid_h * 14 - fitted.height
    sides = ((bottom, 0) if top else (0, bottom), (right, 0) if left else (0, right), (0, 0))
    return reference.cut(np.pad(pixels, sides, constant_values=value))


PICTURE = noise(61, 90)
FITTED = fit(61, 90, 16384, PUBLISHED)
RIGHT = patches(PICTURE, FITTED, PUBLISHED)
FAULTS = {
    "block order": blocks_of_four(RIGHT, FITTED.grid_h, FITTED.grid_w),
    "padding on the left": padded_elsewhere(PICTURE, FITTED, left=True),
    "padding on top": padded_elsewhere(PICTURE, FITTED, top=True),
    "grey padding": padded_elsewhere(PICTURE, FITTED, value=128),
    "white padding": padded_elsewhere(PICTURE, FITTED, value=255),
    "blue first": RIGHT.reshape(-1, 3, 196)[:, ::-1],
    "channels last": RIGHT.reshape(-1, 3, 196).transpose(0, 2, 1),
    "columns first": RIGHT.reshape(-1, 3, 14, 14).transpose(0, 1, 3, 2),
    "stretched": reference.cut(
        np.asarray(PICTURE.resize((FITTED.grid_w * 14, FITTED.grid_h * 14), 3))
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_slow_statement_catches(fault):
    slow = reference.cut(reference.canvas(PICTURE, 16384)).reshape(RIGHT.shape)
    assert np.array_equal(RIGHT, slow)
    assert not np.array_equal(FAULTS[fault].reshape(RIGHT.shape), slow)


@pytest.mark.parametrize(
    "fault",
    [Image.Resampling.BILINEAR, Image.Resampling.LANCZOS, Image.Resampling.NEAREST],
    ids=lambda fault: fault.name,
)
def test_another_filter_is_seen(fault):
    picture = noise(300, 200)
    fitted = fit(300, 200, 64, PUBLISHED)
    small = picture.resize((fitted.width, fitted.height), fault)
    slow = reference.cut(reference.canvas(picture, 64))
    assert not np.array_equal(patches(small, fitted, PUBLISHED), slow.reshape(len(slow), -1))


def test_normalising_before_padding_is_seen():
    exact = reference.values(PICTURE, 16384)
    wrong = normalised(RIGHT, PUBLISHED).reshape(exact.shape)
    wrong = np.where(exact == -1, np.float32(0), wrong)  # zeros put in after normalisation
    assert np.abs(wrong - exact).max() > 2**-23
