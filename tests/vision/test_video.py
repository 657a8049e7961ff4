"""From bytes to Media: chunks, sizes, times, and early refusal."""

from dataclasses import replace

import numpy as np
import pytest

from hybrid.errors import RequestError
from hybrid.vision import container
from hybrid.vision import video as module
from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.sampling import Clip
from hybrid.vision.video import planned, video_media
from tests.vision.clips import NEEDS_AV, animation, level, video

pytest.importorskip("av", reason=NEEDS_AV)

SAMPLED = (0, 16, 33, 50, 66, 82, 99)  # of 100 frames at 30 a second (spec §6.2)


def first_levels(item) -> list[int]:
    """Brightness of the first patch of each frame of an item."""
    t, h, w = item.grid
    return [round(float(frame[0].mean())) for frame in item.patches.reshape(t, h * w, -1)]


def seen(media) -> list[int]:
    return [value for item in media.items for value in first_levels(item)]


def test_a_clip_becomes_chunks_of_four():
    media = video_media(video(options={"b": "2000000"}), PUBLISHED, 100, "clip.mp4")
    assert (media.kind, media.name, media.width, media.height) == ("video", "clip.mp4", 64, 48)
    assert [item.grid for item in media.items] == [(4, 4, 6), (3, 4, 6)]
    assert media.stamps == ("00:00:00.000", "00:00:02.200")
    assert media.seconds == pytest.approx(10 / 3)
    assert media.tokens == 12
    assert [item.patches.shape for item in media.items] == [(96, 588), (72, 588)]
    assert all(item.patches.dtype == np.uint8 for item in media.items)
    # within 2 levels as in test_container; neighbouring frames are 5 apart
    assert np.abs(np.subtract(seen(media), [level(index) for index in SAMPLED])).max() <= 2


@pytest.mark.parametrize("late", [-1, 1])
def test_neighbouring_frames_would_be_seen(late, monkeypatch):
    real = module.sampled_indices
    monkeypatch.setattr(
        module,
        "sampled_indices",
        lambda *args: tuple(min(max(i + late, 0), 98) for i in real(*args)),
    )
    media = video_media(video(options={"b": "2000000"}), PUBLISHED, 100)
    assert np.abs(np.subtract(seen(media), [level(index) for index in SAMPLED])).max() > 2


@pytest.mark.parametrize(
    ("size", "grid", "tokens"),
    [((1280, 720), (1, 50, 86), 1075), ((640, 480), (1, 36, 46), 414), ((16, 64), (1, 6, 2), 3)],
)
def test_frames_have_their_own_limit(size, grid, tokens):
    """Rows of the table in spec §6.1."""
    media = video_media(video(frames=2, size=size), PUBLISHED, 2000)
    assert (media.items[0].grid, media.tokens) == (grid, tokens)


def test_frames_share_a_limit_of_the_video():
    config = replace(PUBLISHED, in_patch_limit_video=28)
    media = video_media(video(), config, 100)
    assert [item.grid for item in media.items] == [(4, 2, 4), (3, 2, 4)]


def test_an_animation_is_a_video():
    levels = list(range(0, 240, 12))
    media = video_media(animation("GIF", levels, 100, size=(28, 28)), PUBLISHED, 100, "loop.gif")
    assert [item.grid for item in media.items] == [(4, 2, 2)]  # 2 s: 0, 6.33, 12.67, 19
    assert seen(media) == [levels[index] for index in (0, 6, 13, 19)]
    assert media.stamps == ("00:00:00.000",)
    assert media.seconds == pytest.approx(2.0)


def test_a_long_video_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(container, "frames", lambda *args: pytest.fail("read"))
    with pytest.raises(RequestError, match=r"'clip' \(3\.3 s\) takes 12 tokens, 11 are left: cut"):
        video_media(video(), PUBLISHED, 11, "clip")


def test_a_claim_of_a_billion_frames_costs_nothing():
    clip = Clip(frames=10**9, fps=1e-2, width=1, height=1)
    with pytest.raises(RequestError, match="takes 250,000,000 tokens, 262,144 are left"):
        planned(clip, PUBLISHED, 262_144, "clip")


def test_a_file_that_shows_fewer_frames_than_it_counts_is_sampled_again(monkeypatch):
    source = video(frames=60)
    expected = video_media(source, PUBLISHED, 100)
    real = container.probe
    monkeypatch.setattr(container, "probe", lambda *args: replace(real(*args), frames=75))
    media = video_media(source, PUBLISHED, 100)
    assert media.seconds == 2.0
    assert [item.digest for item in media.items] == [item.digest for item in expected.items]


def test_packets_that_show_nothing_are_not_frames():
    """VP8 puts a picture that others are predicted from in a packet of its own."""
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "400k"}
    source = video("libvpx", "webm", options=options)
    media = video_media(source, PUBLISHED, 100)
    assert np.abs(np.subtract(seen(media), [level(index) for index in SAMPLED])).max() <= 2


def test_a_number_of_frames_that_changes_is_refused(monkeypatch):
    monkeypatch.setattr(container, "frames", lambda *args: (yield None))
    with pytest.raises(RequestError, match="another number of frames at each reading"):
        video_media(video(frames=60), PUBLISHED, 100)


def test_one_picture_is_held_at_a_time(monkeypatch):
    """Each is cut to patches before the next is decoded."""
    order = []
    decode, cut = container._upright, module.patches
    monkeypatch.setattr(container, "_upright", lambda *a: order.append("frame") or decode(*a))
    monkeypatch.setattr(module, "patches", lambda *a: order.append("patches") or cut(*a))
    video_media(video(), PUBLISHED, 100)
    assert order == ["frame", *["frame", "patches"] * len(SAMPLED)]  # the first is the probe's
