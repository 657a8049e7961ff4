"""Small videos drawn here: frame i is a ramp from left (dark) to right, brighter with i."""

import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

NEEDS_AV = "PyAV is an extra: pip install 'kimi-local[video]'"


def level(index: int) -> int:
    """Brightness of the left half of a frame; the right half is 40 brighter."""
    return 16 + index * 5 % 150


def drawn(index: int, width: int, height: int) -> np.ndarray:
    frame = np.full((height, width, 3), level(index), np.uint8)
    frame[:, width // 2 :] += 40
    return frame


def video(
    codec="libx264",
    form="mp4",
    *,
    frames=100,
    fps=30,
    size=(64, 48),
    options=None,
    container_options=None,
    rotation=None,
    hflip=False,
    times=None,
) -> bytes:
    """Encode `frames` drawn frames; `times` gives their pts in 1/1000 s for a variable rate."""
    av = pytest.importorskip("av", reason=NEEDS_AV)
    out = io.BytesIO()
    with av.open(out, "w", format=form, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=hflip)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(drawn(index, *size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def sound() -> bytes:
    """An MP4 with sound alone."""
    av = pytest.importorskip("av", reason=NEEDS_AV)
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        for index in range(4):
            frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
            frame.planes[0].update(bytes(4096))
            frame.sample_rate, frame.pts = 48000, 1024 * index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def animation(form: str, levels, durations, *, size=(32, 24), **options) -> bytes:
    """One frame of one level for each of `levels`, shown `durations` milliseconds."""
    pictures = [Image.new("RGB", size, (value,) * 3) for value in levels]
    out = io.BytesIO()
    pictures[0].save(
        out, form, save_all=True, append_images=pictures[1:], duration=durations, **options
    )
    return out.getvalue()


def damaged(source: bytes, rng: np.random.Generator, start: int, counts: list[int]) -> bytes:
    """The same with some bytes from `start` on changed: as many as one of `counts`."""
    bad = bytearray(source)
    for at in rng.integers(start, len(bad), rng.choice(counts)):
        bad[at] = rng.integers(256)
    return bytes(bad)
