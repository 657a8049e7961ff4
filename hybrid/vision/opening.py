"""The media of a request: whatever a caller gives for an image or a video, opened and counted.

    MediaPart("image", source=bytes | Path | PIL image | Media | None)     None: the next of images=
    MediaPart("image", source="data:…", is_url=True)
         -> bytes (source.py) -> Media (image.py, video.py)

Opening stops as soon as the media are more than the context holds.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from hybrid.chat.messages import MediaPart
from hybrid.errors import ContextTooLongError, RequestError
from hybrid.model_files import shown
from hybrid.vision.image import image_media
from hybrid.vision.media import Media
from hybrid.vision.media_config import MediaConfig
from hybrid.vision.source import read_file, read_url
from hybrid.vision.video import video_media


def open_image(source: Any, config: MediaConfig, name: str | None = None) -> Media:
    """An image from bytes, a Path, a PIL image, or Media that was opened before."""
    if isinstance(source, Media):
        return _of_kind("image", source)
    if isinstance(source, Path):
        return image_media(read_file(source, "images"), config, name or source.name)
    if isinstance(source, bytes | bytearray | memoryview):
        source = bytes(source)
    elif not isinstance(source, Image.Image):
        raise RequestError(
            f"an image is a {type(source).__name__}; give bytes, a Path or a PIL image", "images"
        )
    return image_media(source, config, name or "image")


def open_video(source: Any, config: MediaConfig, max_tokens: int, name: str | None = None) -> Media:
    """A video from bytes, a Path, or Media that was opened before; of at most `max_tokens`."""
    if isinstance(source, Media):
        return _of_kind("video", source)
    if isinstance(source, Path):
        return video_media(read_file(source), config, max_tokens, name or source.name)
    if not isinstance(source, bytes | bytearray | memoryview):
        raise RequestError(
            f"a video is a {type(source).__name__}; give bytes or a Path", "messages"
        )
    return video_media(bytes(source), config, max_tokens, name or "video")


def open_parts(
    parts: Sequence[MediaPart],
    beside: Sequence[Any],
    config: MediaConfig,
    max_tokens: int,
    root: Path | None,
) -> list[Media]:
    """The media of messages, in order. Parts without a source take the next of `beside`.

    `root`: the directory under which URLs may name files. Raises RequestError naming the part, and
    ContextTooLongError once they take more than `max_tokens`.
    """
    opened: list[Media] = []
    total, left = 0, iter(beside)
    for part in parts:
        source = read_url(part.source, root, part.param) if part.is_url else part.source
        if source is None:
            source = _next(left, part)
        media = _open(part, source, config, max_tokens - total)
        total += media.tokens
        if total > max_tokens:
            raise ContextTooLongError(total, max_tokens)
        opened.append(media)
    if unused := sum(1 for _ in left):
        raise RequestError(
            f"{len(beside)} images were given but the prompt has places for "
            f"{len(beside) - unused}; give one for each place",
            "images",
        )
    return opened


def _open(part: MediaPart, source: Any, config: MediaConfig, max_tokens: int) -> Media:
    """Open what a part holds; whatever is wrong with it names the part."""
    try:
        if part.kind == "image":
            return open_image(source, config)
        return open_video(source, config, max_tokens)
    except RequestError as error:
        raise RequestError(str(error), part.param) from None


def _next(left: Iterator[Any], part: MediaPart) -> Any:
    for source in left:
        return source
    raise RequestError(f"{part.param} is missing; give it there or in images=", part.param)


def _of_kind(kind: str, media: Media) -> Media:
    if media.kind != kind:
        seen, wanted = ("a video", "an image") if kind == "image" else ("an image", "a video")
        raise RequestError(f"{shown(media.name)} is {seen}, not {wanted}; name it so", "messages")
    return media
