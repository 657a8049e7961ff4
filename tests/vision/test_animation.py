"""GIF, WebP and PNG animations: durations, frames laid over one another, hostile files."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hybrid.errors import RequestError
from hybrid.vision import animation
from hybrid.vision.animation import animation_format, frames, probe
from tests.vision.clips import animation as animated
from tests.vision.clips import damaged

ALL = frozenset(range(100))
FORMS = {"GIF": {}, "WEBP": {"lossless": True}, "PNG": {}}
LEVELS = (0, 40, 80, 120, 160)


def levels(source: bytes, wanted=ALL) -> list[int | None]:
    """Value of the first pixel of each frame."""
    return [
        None if picture is None else picture.getpixel((0, 0))[0]
        for picture in frames(source, wanted, "loop")
    ]


@pytest.mark.parametrize("form", FORMS)
def test_frames_and_durations(form):
    source = animated(form, LEVELS, [40, 60, 100, 200, 100], **FORMS[form])
    clip = probe(source, "loop")
    assert animation_format(source).upper() == form
    assert (clip.frames, clip.width, clip.height) == (5, 32, 24)
    assert clip.seconds == pytest.approx(0.5)
    assert levels(source) == list(LEVELS)
    assert levels(source, {1, 4}) == [None, 40, None, None, 160]


@pytest.mark.parametrize("form", FORMS)
def test_a_still_picture_is_a_video_of_one_frame(form):
    out = io.BytesIO()
    Image.new("RGB", (20, 10), (7, 7, 7)).save(out, form, lossless=True)
    clip = probe(out.getvalue(), "still")
    assert (clip.frames, clip.width, clip.height, clip.fps) == (1, 20, 10, 10.0)
    assert levels(out.getvalue()) == [7]


@pytest.mark.parametrize("told", [0, 10])
def test_a_duration_that_browsers_do_not_believe(told):
    assert probe(animated("GIF", LEVELS, told), "loop").seconds == pytest.approx(0.5)
    assert probe(animated("GIF", LEVELS, 20), "loop").seconds == pytest.approx(0.1)


@pytest.mark.parametrize("form", FORMS)
def test_transparency_is_white(form):
    pictures = [Image.new("RGBA", (8, 8), (0, 0, 0, alpha)) for alpha in (0, 255)]
    pictures[1].putpixel((1, 1), (9, 9, 9, 255))
    out = io.BytesIO()
    rest = {"save_all": True, "append_images": pictures[1:], "duration": 50, "disposal": 2}
    pictures[0].save(out, form, **rest, **FORMS[form])
    assert levels(out.getvalue()) == [255, 0]


def test_a_frame_is_laid_over_the_one_before():
    """The second frame of this GIF changes one quarter; PIL saves only that."""
    first = Image.new("RGB", (16, 16), (200, 0, 0))
    second = first.copy()
    second.paste((0, 0, 200), (0, 0, 8, 8))
    out = io.BytesIO()
    first.save(out, "GIF", save_all=True, append_images=[second], duration=50)
    last = list(frames(out.getvalue(), ALL, "loop"))[1]
    assert last.getpixel((0, 0)) == (0, 0, 200)
    assert last.getpixel((15, 15)) == (200, 0, 0)


def test_a_png_picture_for_old_readers_is_not_a_frame():
    still, *shown = [Image.new("RGB", (8, 8), (value,) * 3) for value in (1, 100, 200)]
    out = io.BytesIO()
    still.save(out, "PNG", save_all=True, append_images=shown, default_image=True, duration=100)
    assert probe(out.getvalue(), "loop").frames == 2
    assert levels(out.getvalue()) == [100, 200]


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("MAX_FILE_BYTES", 100, "bytes; at most 100 are read"),
        ("MAX_FRAME_PIXELS", 767, "is 32 x 24; at most 767 pixels"),
        ("MAX_FRAMES", 4, "has more than 4 frames"),
        ("MAX_SECONDS", 0.0, "takes more than 0 s to read"),
    ],
)
def test_limits(limit, value, reason, monkeypatch):
    source = animated("GIF", LEVELS, 50)
    monkeypatch.setattr(animation, limit, value)
    with pytest.raises(RequestError, match=rf"'loop' {reason}|'loop' is .*{reason}") as error:
        probe(source, "loop")
    assert error.value.param == "messages"


def test_as_many_frames_as_allowed_are_read(monkeypatch):
    monkeypatch.setattr(animation, "MAX_FRAMES", 5)
    assert probe(animated("GIF", LEVELS, 50), "loop").frames == 5


def endless_gif(count: int) -> bytes:
    """`count` frames of one pixel, 23 bytes each."""
    head = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff"
    control = b"!\xf9\x04\0\x02\0\0\0"
    frame = b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0"
    return head + (control + frame) * count + b";"


def test_a_gif_of_100_000_frames_is_refused():
    with pytest.raises(RequestError, match=r"has more than 20,000 frames: cut it"):
        probe(endless_gif(100_000), "loop")


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


HUGE = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">2I5B", 60000, 60000, 8, 2, 0, 0, 0))
GIF = animated("GIF", LEVELS, 50)
WEBP = animated("WEBP", LEVELS, 50)
PNG = animated("PNG", LEVELS, 50)
ODD = {
    "a large PNG": HUGE + png_chunk(b"IDAT", zlib.compress(bytes(99))) + png_chunk(b"IEND", b""),
    "a large GIF": b"GIF89a\xff\xff\xff\xff" + GIF[10:],
    "a frame beyond the GIF": GIF.replace(b",\0\0\0\0\x20\0", b",\xff\xff\xff\xff\xff\xff", 1),
    "a GIF's first bytes": b"GIF89a",
    "a GIF without frames": b"GIF89a\x01\0\x01\0\0\0\0;",
    "a WebP's first bytes": WEBP[:12],
    "half a WebP": WEBP[: len(WEBP) // 2],
    "a PNG without frames": PNG.replace(b"acTL\0\0\0\x05", b"acTL\0\0\0\0"),
    "a PNG of 4 billion frames": PNG.replace(b"acTL\0\0\0\x05", b"acTL\xff\xff\xff\xff"),
    "a PNG's first bytes": PNG[:8],
    "half a PNG": PNG[: len(PNG) // 2],
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_is_one_line(kind):
    with pytest.raises(RequestError) as error:
        probe(ODD[kind], "loop")
    assert str(error.value).startswith("'loop' ")
    assert "\n" not in str(error.value)


def test_damaged_anywhere_it_is_a_clip_or_one_line():
    """Any other exception fails the test."""
    rng = np.random.default_rng(5)
    outcomes = {
        outcome(damaged(source, rng, 12, [1, 4])) for _ in range(60) for source in (GIF, WEBP, PNG)
    }
    assert {line.split()[0] for line in outcomes} == {"'loop'", "read"}
    assert not any("\n" in line for line in outcomes)


def outcome(source: bytes) -> str:
    try:
        probe(source, "loop")
        return f"read {len(levels(source))}"
    except RequestError as error:
        return str(error)
