"""Logits behind images and frames, against transformers' tower, projector and language model.

Pixels come from PIL by a few obvious lines of their own (`tests.reference.pixels`), features from
transformers' tower in fp32, and they take the place of embeddings in transformers' language model.
All experts are asked for by every token, so that no rounding can choose others among them; the
bound is that of tests/test_against_transformers.py.
"""

import numpy as np
import pytest
from PIL import Image

import hybrid
from hybrid.tiny import TinyShape, write_tiny
from hybrid.vision.media import Media
from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.patches import item_of, patches
from hybrid.vision.resize import fit
from tests.reference.pixels import grid_of, normalised_patches
from tests.reference.transformers_model import Oracle, dense_copy

pytestmark = pytest.mark.oracle

BF16 = 2.0**-9
FP32_NOISE = 5e-4  # of a tower and a model whose sums are ordered otherwise; see the control below
PAD = -1
IDS = [5, 17, PAD, 99, 3]
SHAPE = TinyShape(n_routed_experts=4, num_experts_per_tok=4, num_hidden_layers=3)
SIZES = [(17, 64), (300, 200), (29, 500), (930, 910)]  # the last: a grid of 66 x 68
CLIPS = [(2, 100, 57), (4, 120, 80)]  # frames, width, height
MANY = 1000  # rows, for which fewer draws of noise are as telling


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny") / "sees", SHAPE, seed=5)


@pytest.fixture(scope="module")
def engine(model_dir):
    return hybrid.load(model_dir, device="cpu", activation="bf16", kv_tokens=2048)


@pytest.fixture(scope="module")
def judge(model_dir, tmp_path_factory):
    return Oracle(dense_copy(model_dir, tmp_path_factory.mktemp("dense") / "sees"))


def picture(width, height, seed=0):
    """Smooth shapes and noise, so that a wrong resampling or a wrong order shows."""
    rng = np.random.default_rng([width, height, seed])
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (7 + 3 * c) + seed) + np.cos(y / (11 - 2 * c)) for c in range(3)]
    values = 128 + 45 * np.stack(waves, axis=-1) + rng.normal(0, 15, (height, width, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def reference(engine, judge):
    """Oracle's logits of IDS with an item of some frames, and how far rounding may move them."""
    pad, known = engine.config.media_placeholder_token_id, {}

    def compute(frames, width, height):
        clip = [picture(width, height, seed) for seed in range(frames)]
        grid = grid_of(frames, width, height)
        rows = judge.features(normalised_patches(clip, grid), grid)
        at = IDS.index(PAD)
        expanded = [*IDS[:at], *[pad] * len(rows), *IDS[at + 1 :]]
        exact = judge.logits(expanded, pictures={at: rows})
        draws = 2 if len(rows) > MANY else 6
        return exact, judge.sensitivity(expanded, BF16, draws, {at: rows}) + FP32_NOISE

    def of(*size):
        if size not in known:
            known[size] = compute(*size)
        return known[size]

    return of


def logits(engine, image):
    pad = engine.config.media_placeholder_token_id
    return engine.logits([pad if token == PAD else token for token in IDS], images=[image])


def video(frames):
    """An item of several frames, beside `image_media`, which makes those of one."""
    fitted = fit(*frames[0].size, PUBLISHED.in_patch_limit_each_frame, PUBLISHED)
    item = item_of([patches(frame, fitted, PUBLISHED) for frame in frames], fitted)
    return Media("image", "clip", *frames[0].size, (item,))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_images(engine, reference, width, height, record_property):
    exact, bound = reference(1, width, height)
    got = logits(engine, picture(width, height))
    off = float(np.abs(got - exact).max())
    record_property("deviation", f"{width}x{height}: {len(got)} rows, {off:.1e} of {bound:.1e}")
    assert exact.std() > 1
    assert got.shape == exact.shape
    assert off <= bound


@pytest.mark.parametrize(("frames", "width", "height"), CLIPS)
def test_frames(engine, reference, frames, width, height, record_property):
    exact, bound = reference(frames, width, height)
    clip = [picture(width, height, seed) for seed in range(frames)]
    off = float(np.abs(logits(engine, video(clip)) - exact).max())
    record_property("deviation", f"{frames} frames: {off:.1e} of {bound:.1e}")
    assert off <= bound


@pytest.mark.parametrize("fault", ["mirrored", "one pixel to the right", "another picture"])
def test_the_bound_sees_a_wrong_picture(engine, reference, fault):
    image = picture(300, 200)
    wrong = {
        "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "one pixel to the right": Image.fromarray(np.roll(np.asarray(image), 1, axis=1)),
        "another picture": picture(300, 200, seed=1),
    }[fault]
    exact, bound = reference(1, 300, 200)
    assert np.abs(logits(engine, wrong) - exact).max() > 2 * bound


def test_without_rounding_only_fp32_is_left(engine, judge):
    """How much of the bound is spent on fp32 alone: the features, which are not rounded."""
    image = picture(300, 200)
    grid = grid_of(1, *image.size)
    want = judge.features(normalised_patches([image], grid), grid)
    (got,) = engine._vision._tower.features(engine.open_image(image).items)
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
