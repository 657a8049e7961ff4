"""Which frames and which times: the published vectors, exact fractions, and planted faults."""

from dataclasses import replace
from fractions import Fraction
from math import floor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.vision import sampling
from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.sampling import (
    Clip,
    chunk_count,
    chunked,
    frame_limit,
    sampled_frames,
    sampled_indices,
    stamp,
)

RATES = [1.0, 2.0, 12.5, 24000 / 1001, 25.0, 30000 / 1001, 30.0, 60.0]


def clip(frames: int, fps: float) -> Clip:
    return Clip(frames=frames, fps=fps, width=64, height=48)


def indices(frames: int, fps: float) -> tuple[int, ...]:
    return sampled_indices(frames, sampled_frames(clip(frames, fps), PUBLISHED))


def stamps(frames: int, fps: float) -> list[str]:
    return [stamp(chunk[0], fps) for chunk in chunked(indices(frames, fps), PUBLISHED)]


def check_vectors() -> None:
    """The two examples of spec §6.2."""
    assert indices(100, 30.0) == (0, 16, 33, 50, 66, 82, 99)
    assert stamps(100, 30.0) == ["00:00:00.000", "00:00:02.200"]
    assert len(indices(300, 25.0)) == 24
    assert stamps(300, 25.0) == [f"00:00:{2080 * i / 1000:06.3f}" for i in range(6)]
    assert [len(c) for c in chunked(indices(100, 30.0), PUBLISHED)] == [4, 3]


def test_published_vectors():
    check_vectors()


def floored(frames: int, count: int) -> tuple[int, ...]:
    return tuple(np.linspace(0, frames - 1, count).astype(int).tolist())


def rounded_up(frames: int, count: int) -> tuple[int, ...]:
    return tuple(np.floor(np.linspace(0, frames - 1, count) + 0.5).astype(int).tolist())


def short_of_the_last(frames: int, count: int) -> tuple[int, ...]:
    return tuple(np.linspace(0, frames, count, endpoint=False).round().astype(int).tolist())


def one_more(clip: Clip, config) -> int:
    return sampling.sampled_frames(clip, config) + 1


def of_the_sampled_number(index: int, fps: float) -> str:
    return sampling.stamp(round(index * 6 / 99), 2.0)


def backwards(indices, config):
    return [chunk[::-1] for chunk in sampling.chunked(indices, config)]


def filled_up(indices, config):
    return [chunk + chunk[-1:] * (4 - len(chunk)) for chunk in sampling.chunked(indices, config)]


FAULTS = {
    "floored": ("sampled_indices", floored),
    "halves rounded up": ("sampled_indices", rounded_up),
    "last frame left out": ("sampled_indices", short_of_the_last),
    "one frame too many": ("sampled_frames", one_more),
    "time of the sampled frame's number": ("stamp", of_the_sampled_number),
    "time of a chunk's last frame": ("chunked", backwards),
    "last chunk filled up": ("chunked", filled_up),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_vectors_catch(fault, monkeypatch):
    monkeypatch.setitem(globals(), *FAULTS[fault])
    with pytest.raises(AssertionError):
        check_vectors()


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 2_000), st.sampled_from(RATES))
def test_indices_are_the_exact_fractions_rounded(frames, fps):
    """An exact tie may fall either way: the float step is off by its rounding."""
    found = indices(frames, fps)
    count = len(found)
    assert found[0] == 0
    assert len(set(found)) == count <= frames
    for at, index in enumerate(found):
        exact = Fraction(at * (frames - 1), max(count - 1, 1))
        assert abs(index - exact) <= Fraction(1, 2)
    if count > 1:
        assert found[-1] == frames - 1


@pytest.mark.parametrize(
    ("frames", "fps", "count"),
    [
        (1, 30.0, 1),
        (3, 30.0, 1),  # a tenth of a second: 0.2, still one
        (25, 20.0, 2),  # 2.5 is even below
        (35, 20.0, 4),  # 3.5 is even above
        (10, 1.0, 10),  # slower than two a second: all
        (7, 0.5, 7),
    ],
)
def test_how_many_are_sampled(frames, fps, count):
    assert sampled_frames(clip(frames, fps), PUBLISHED) == count


def test_a_limit_on_the_frames_of_a_video():
    config = replace(PUBLISHED, max_num_frames_each_video=5)
    assert sampled_frames(clip(1000, 30.0), config) == 5
    assert sampled_frames(clip(60, 30.0), config) == 4


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("sampled", [1, 3, 4, 5, 8, 9])
def test_chunks_hold_every_frame_once(size, sampled):
    config = replace(PUBLISHED, temporal_merge_kernel_size=size)
    chunks = chunked(range(sampled), config)
    assert [index for chunk in chunks for index in chunk] == list(range(sampled))
    assert len(chunks) == chunk_count(sampled, config)
    assert all(len(chunk) == size for chunk in chunks[:-1])


@pytest.mark.parametrize(
    ("index", "fps", "text"),
    [
        (0, 30.0, "00:00:00.000"),
        (29, 25.0, "00:00:01.159"),  # 1.16 - 1 is 0.1599...
        (58, 100.0, "00:00:00.580"),  # 0.58 is below, its product with 1000 is not
        (1, 30000 / 1001, "00:00:00.033"),
        (90_000, 25.0, "01:00:00.000"),
        (107_999, 30.0, "00:59:59.966"),
        (864_000, 10.0, "24:00:00.000"),  # hours go on; a clock would begin anew
        (3_599_999, 1000.0, "00:59:59.998"),  # 3599.999 is below, and its product too
    ],
)
def test_times_are_truncated(index, fps, text):
    assert stamp(index, fps) == text


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 1 << 20), st.floats(0.01, 1000))
def test_times_are_those_of_the_quotient(index, fps):
    """The stamp is at most a millisecond early.

    index / fps and its fraction are exact floats here. 1000 times the fraction is rounded once, by
    at most 2^-53 of its value: less than 2^-53 s.
    """
    hours, minutes, seconds = stamp(index, fps).split(":")
    shown = int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    late = Fraction(index / fps) - shown
    slack = Fraction(1, 1 << 53)
    assert -slack <= late < Fraction(1, 1000) + slack
    assert floor(shown) == int(index / fps)


@pytest.mark.oracle
@pytest.mark.parametrize("fps", RATES)
def test_times_and_tokens_are_those_of_transformers(fps):
    """Its processor writes the stamps of given frames; up to 22 hours, its clock has 24."""
    from transformers.models.kimi_k25.processing_kimi_k25 import Kimi_K25Processor
    from transformers.video_utils import VideoMetadata

    found = sampled_indices(80_000, 800)
    grid = np.array([[4, 4, 6]] * 200)
    inputs = {
        "num_chunks_per_video": [200],
        "video_grid_thw": grid,
        "video_metadata": [VideoMetadata(80_000, fps=fps, frames_indices=list(found))],
    }
    processor = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=4), video_token="#"
    )
    text = Kimi_K25Processor.replace_video_token(processor, inputs, 0)
    head = "<|media_begin|>video<|media_content|>######<|media_end|>"
    ours = [stamp(chunk[0], fps) + head for chunk in chunked(found, PUBLISHED)]
    assert text == "".join(ours)


def test_frames_share_the_limit_of_a_video():
    assert frame_limit(1000, PUBLISHED) == 4096
    config = replace(PUBLISHED, in_patch_limit_video=10_000)
    assert frame_limit(2, config) == 4096
    assert frame_limit(8, config) == 1250
    assert frame_limit(7, config) == 1429  # 1428.57
    assert frame_limit(30_000, config) == 1
