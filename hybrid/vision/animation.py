"""Animated GIF, WebP and PNG, read as video through PIL.

    durations   40  40  60  40 ms    -> 4 frames in 0.18 s: 22.2 a second on average
    frames      as they are shown, laid over what came before, transparency on white

The same two functions as container.py. There is no index in such a file, so both walk all of it;
the number of frames, their pixels and the time are bounded. PIL's check of pixels belongs to the
whole process, so its formats are opened one by one, past Image.open.
"""

import io
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from time import perf_counter
from typing import NoReturn

from PIL import GifImagePlugin, Image, ImageFile, PngImagePlugin, WebPImagePlugin

from hybrid.errors import RequestError
from hybrid.model_files import shown
from hybrid.vision.picture import MAX_FILE_BYTES, UNREADABLE, open_picture
from hybrid.vision.sampling import Clip, Frames

MAX_FRAME_PIXELS = 1 << 25
MAX_FRAMES = 20_000
MAX_SECONDS = 120.0  # of work for one pass over a file
FASTEST_MS, INSTEAD_MS = 10.0, 100.0  # browsers show a frame of 10 ms or less for 100

_OPENERS: Mapping[str, type[ImageFile.ImageFile]] = {
    "GIF": GifImagePlugin.GifImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "PNG": PngImagePlugin.PngImageFile,
}
_UNREADABLE = (*UNREADABLE, ZeroDivisionError, Image.DecompressionBombWarning)  # as an error


def animation_format(source: bytes) -> str | None:
    """Name the format by its first bytes; a still picture is a video of one frame."""
    if source[:4] == b"GIF8":
        return "GIF"
    if source[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    return "WebP" if source[:4] == b"RIFF" and source[8:12] == b"WEBP" else None


def probe(source: bytes, name: str) -> Clip:
    """Count the frames and add their durations up; raises RequestError in one line."""
    width, height = 0, 0
    durations: list[float] = []
    for image in _walk(source, name):
        if not durations:
            width, height = _picture(image, name).size
        durations.append(_duration_ms(image))
    fps = len(durations) / sum(durations) * 1000
    return Clip(frames=len(durations), fps=fps, width=width, height=height)


def frames(source: bytes, wanted: AbstractSet[int], name: str) -> Frames:
    """Yield for each frame, in order, its RGB picture if `wanted`, else None."""
    for index, image in enumerate(_walk(source, name)):
        yield _picture(image, name) if index in wanted else None


def _walk(source: bytes, name: str) -> Iterator[Image.Image]:
    """Yield the one image of a file at each of its frames, decoded."""
    deadline = perf_counter() + MAX_SECONDS
    with _opened(source, name) as image:
        first = 1 if image.info.get("default_image") else 0  # a PNG's picture for old readers
        for index in range(first, first + MAX_FRAMES + 1):
            if not _turned_to(image, index, first):
                return
            _check_size(image, name)
            if index == first + MAX_FRAMES:
                _refuse(name, f"has more than {MAX_FRAMES:,} frames: cut it")
            if perf_counter() > deadline:
                _refuse(name, f"takes more than {MAX_SECONDS:g} s to read: cut it")
            image.load()
            yield image


def _turned_to(image: Image.Image, index: int, first: int) -> bool:
    """Turn to a frame, or tell that there are no more; the first must be there."""
    try:
        image.seek(index)
    except EOFError:
        if index == first:
            raise
        return False
    return True


@contextmanager
def _opened(source: bytes, name: str) -> Iterator[Image.Image]:
    """Open bytes; what PIL raises inside comes out in one line."""
    if len(source) > MAX_FILE_BYTES:
        _refuse(name, f"is {len(source):,} bytes; at most {MAX_FILE_BYTES:,} are read: cut it")
    form = animation_format(source) or "GIF"
    if form == "PNG":
        _check_png(source, name)
    try:
        with _OPENERS[form](io.BytesIO(source)) as image:
            _check_size(image, name)
            yield image
    except _UNREADABLE as error:
        reason = shown(str(error))[1:-1] or type(error).__name__
        _refuse(name, f"cannot be read as {form}: {reason}; save it again or as MP4")


def _check_png(source: bytes, name: str) -> None:
    """Refuse a number of frames that PIL would only warn of, and take the file as a still one."""
    head = source[: source.find(b"IDAT")]
    told = [int.from_bytes(rest[:4], "big") for rest in head.split(b"acTL")[1:]]
    if len(told) > 1 or not all(0 < count <= MAX_FRAMES for count in told):
        _refuse(name, f"tells {told[0]:,} frames; from 1 to {MAX_FRAMES:,}, told once, are read")


def _check_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_FRAME_PIXELS:
        size = f"{image.width} x {image.height}"
        _refuse(name, f"is {size}; at most {MAX_FRAME_PIXELS:,} pixels are read")


def _picture(image: Image.Image, name: str) -> Image.Image:
    return open_picture(image.convert("RGBA"), name)


def _duration_ms(image: Image.Image) -> float:
    told = float(image.info.get("duration", 0))
    return told if told > FASTEST_MS else INSTEAD_MS


def _refuse(name: str, why: str) -> NoReturn:
    raise RequestError(f"{shown(name)} {why}", "messages") from None
