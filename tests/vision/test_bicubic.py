"""Our resampling against PIL's: the same bytes, whatever the size, and what would change them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hybrid.vision import bicubic
from hybrid.vision.bicubic import resized

pytestmark = pytest.mark.oracle
SIDES = st.integers(1, 400)


def noise(width, height, seed=1):
    """Bytes at both ends of the range, where filters overshoot and must be clipped."""
    random = np.random.default_rng(seed)
    values = random.choice(np.array([0, 1, 127, 254, 255], np.uint8), (height, width, 3))
    return Image.fromarray(values)


def by_pil(picture, width, height):
    """One direction a call, so that every version of PIL goes along x first."""
    across = picture.resize((width, picture.height), Image.Resampling.BICUBIC)
    return np.asarray(across.resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(autouse=True)
def always_ours(monkeypatch):
    monkeypatch.setattr(bicubic, "WORTHWHILE", 0)


@settings(deadline=None, max_examples=30)
@given(SIDES, SIDES, SIDES, SIDES)
def test_any_size_becomes_any_other_as_in_pil(width, height, new_width, new_height):
    picture = noise(width, height)
    ours = resized(picture, new_width, new_height)
    assert np.array_equal(ours, by_pil(picture, new_width, new_height))


@pytest.mark.parametrize(
    ("size", "new"),
    [
        ((4000, 300), (2071, 155)),
        ((300, 4000), (155, 2071)),
        ((20000, 100), (7168, 35)),
        ((65535, 2), (7168, 1)),
        ((2, 65535), (1, 7168)),
        ((640, 481), (640, 480)),  # one pass only
        ((641, 480), (640, 480)),
        ((1280, 720), (1202, 676)),
        ((31, 33), (31, 33)),
    ],
    ids=str,
)
def test_shapes_of_photos_and_of_slivers_are_as_in_pil(size, new):
    picture = noise(*size)
    assert np.array_equal(resized(picture, *new), by_pil(picture, *new))


def test_small_pictures_go_along_x_first_as_large_ones_do(monkeypatch):
    picture = noise(300, 400)
    ours = resized(picture, 207, 155)
    monkeypatch.undo()
    assert bicubic.WORTHWHILE > 300 * 400
    assert np.array_equal(resized(picture, 207, 155), ours)


def test_a_picture_of_the_right_size_is_not_touched(monkeypatch):
    monkeypatch.setattr(bicubic, "_filter", None)
    assert np.array_equal(resized(noise(50, 40), 50, 40), np.asarray(noise(50, 40)))


def test_a_picture_large_enough_for_threads_is_as_in_pil(monkeypatch):
    monkeypatch.undo()
    picture = noise(1500, 1100)
    assert bicubic.WORTHWHILE < 1500 * 1100
    assert np.array_equal(resized(picture, 777, 570), by_pil(picture, 777, 570))


def test_the_sums_never_leave_32_bits():
    """|sum| <= 255 sum |weight| + 2^21: the weights of one output stay below 2^31 / 255."""
    for inputs, outputs in ((10, 7), (4000, 2071), (65535, 7168), (7, 400), (3, 2), (65535, 1)):
        weights = bicubic._filter(inputs, outputs).weights.astype(np.int64)
        assert 255 * np.abs(weights).sum(axis=1).max() + (1 << 21) < 1 << 31


def test_a_failure_in_a_thread_is_raised(monkeypatch):
    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(bicubic, "_apply", fail)
    with pytest.raises(MemoryError, match="no room"):
        resized(noise(60, 40), 30, 20)


def changed(monkeypatch, fault):
    """Plant one fault in how weights are made."""
    right = bicubic._filter

    def wrong(inputs, outputs):
        found = right(inputs, outputs)
        if fault == "one weight by one unit":
            weights = found.weights.copy()
            weights[len(weights) // 2, 1] += 1 << 14  # 255 times it is one step of the result
            return bicubic.Filter(found.first, found.count, weights)
        if fault == "shifted by one input":
            return bicubic.Filter(np.maximum(found.first - 1, 0), found.count, found.weights)
        return bicubic.Filter(found.first, np.maximum(found.count - 1, 1), found.weights)

    monkeypatch.setattr(bicubic, "_filter", wrong)


@pytest.mark.parametrize("fault", ["one weight by one unit", "shifted by one input", "a tap lost"])
def test_a_fault_in_the_weights_is_seen(monkeypatch, fault):
    changed(monkeypatch, fault)
    picture = noise(300, 200)
    assert not np.array_equal(resized(picture, 110, 70), by_pil(picture, 110, 70))


def test_another_order_of_the_passes_is_seen():
    picture = noise(300, 200)
    turned = picture.transpose(Image.Transpose.TRANSPOSE)
    other = resized(turned, 70, 110).transpose(1, 0, 2)
    assert not np.array_equal(other, by_pil(picture, 110, 70))


def test_another_cubic_is_seen(monkeypatch):
    monkeypatch.setattr(bicubic, "_cubic", lambda x: np.maximum(1 - np.abs(x), 0))
    picture = noise(300, 200)
    assert not np.array_equal(resized(picture, 110, 70), by_pil(picture, 110, 70))
