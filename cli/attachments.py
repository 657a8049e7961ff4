"""Pictures and videos of a conversation: files by path, opened when the model needs them.

    path ─read, hash─> Attachment(kind, path, size, sha256) ─engine─> media: patches and tokens
                       └──────── what a session keeps ────┘

A session keeps no pixels. Whoever goes on with it needs the same bytes at the same path: another
picture under an old name would change what was said about it, so it is refused.
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cli.terminal_text import one_line
from hybrid.errors import RequestError

if TYPE_CHECKING:
    from cli.turn import View
    from hybrid import Engine
    from hybrid.vision.media import Media

Kind = Literal["image", "video"]
KINDS: tuple[Kind, ...] = ("image", "video")
MOST_BYTES = 1 << 30  # read into memory at once; no limit of the engine's is higher
_SHOWN_NAME = 60  # characters


@dataclass(frozen=True, slots=True)
class Attachment:
    """One file that a message shows. `media` is None until it has been opened in this run."""

    kind: Kind
    path: Path  # absolute
    size: int  # bytes
    sha256: str
    media: "Media | None" = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The name that people know it by."""
        return shown_name(self.path)


def shown_name(path: Path) -> str:
    """A file name for one line of text, whatever bytes it is made of."""
    text = one_line(path.name.encode(errors="replace").decode()) or "?"
    return text if len(text) <= _SHOWN_NAME else f"{text[: _SHOWN_NAME - 1]}…"


def attach(engine: "Engine", view: "View", files: Sequence[tuple[Kind, Path]]) -> list[Attachment]:
    """Open files for the next message and say what they are; RequestError if one cannot be."""
    opened = []
    try:
        for kind, path in files:
            name = shown_name(path)
            _require_sight(engine, name)
            view.waiting(f"opening {name}")
            opened.append(_opened(engine, kind, path, _read(path)))
    finally:
        view.finish()
    for attachment in opened:  # now that none is missing
        assert attachment.media is not None
        view.attached(attachment.media)
    return opened


def reopened(engine: "Engine", attachment: Attachment) -> Attachment:
    """What a loaded session shows, from its file; RequestError unless the bytes are the same."""
    if attachment.media is not None:
        return attachment
    name, path = attachment.name, attachment.path
    try:
        _require_sight(engine, name)
        data = _read(path)
        if (len(data), hashlib.sha256(data).hexdigest()) != (attachment.size, attachment.sha256):
            raise RequestError(f"{name} is no longer what it was ({_shown(path)})", attachment.kind)
        return _opened(engine, attachment.kind, path, data)
    except RequestError as error:
        raise RequestError(
            f"{error}; put it back, or in a chat go on without it: /detach {name}", attachment.kind
        ) from None


def named(attachments: Sequence[Attachment]) -> str:
    """Their names, for a sentence."""
    return ", ".join(attachment.name for attachment in attachments)


def _opened(engine: "Engine", kind: Kind, path: Path, data: bytes) -> Attachment:
    opener = engine.open_image if kind == "image" else engine.open_video
    media = opener(data, name=shown_name(path))
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - a symlink stays the name it was given by
    return Attachment(kind, whole, len(data), hashlib.sha256(data).hexdigest(), media)


def _require_sight(engine: "Engine", name: str) -> None:
    if engine.sees:
        return
    if engine.config.vision is None:
        raise RequestError(f"{name}: this model reads text only", "messages")
    raise RequestError(f"{name}: vision was left out; start without --no-vision", "messages")


def _read(path: Path) -> bytes:
    """The bytes of a regular file; a pipe or a device is refused without waiting for it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise RequestError(f"{_shown(path)} is not a regular file", "messages")
            data = file.read(min(status.st_size, MOST_BYTES) + 1)  # allocates what it is asked for
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"{_shown(path)}: {reason}", "messages") from None
    if len(data) > MOST_BYTES:
        raise RequestError(
            f"{_shown(path)} is larger than {MOST_BYTES >> 20} MiB; cut or shrink it", "messages"
        )
    return data


def _shown(path: Path) -> str:
    return one_line(str(path).encode(errors="replace").decode())
