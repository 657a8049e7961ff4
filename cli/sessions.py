"""Conversations on disk: one private JSON file each, replaced whole or not at all.

    {"version": 1, "system": ..., "thinking": ..., "sampling": {}, "tools": ..., "messages": [
      {"role": "user", "content": ...}, {"role": "assistant", "content": ..., "reasoning": ...,
       "tool_calls": [{"id", "name", "arguments"}], "partial": true, ...}]}

A user message may have "attachments": [{"kind", "path", "size", "sha256"}].

A file is never trusted: whatever does not have this shape is refused in one line and left alone.
A save goes to a temporary file, is synced, then renamed over the old one, so a full disk or a
power cut leaves the previous state.
"""

import json
import os
import re
import stat
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from cli import sampling_options, tool_file
from cli.attachments import KINDS, Attachment
from cli.conversation import Conversation, Message, Role
from hybrid.errors import ConfigError, KimiLocalError, RequestError
from hybrid.events import ToolCall

VERSION = 1
MOST_BYTES = 64 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_Stamp = tuple[int, int]


@dataclass(slots=True)
class SessionFile:
    """Where a conversation is kept, and the file as we last saw it (None: not there yet)."""

    path: Path
    seen: _Stamp | None = None

    @property
    def name(self) -> str:
        """The name the user knows it by."""
        return self.path.stem


def session_path(directory: Path, name: str) -> Path:
    """The file of a session; a name is never a path."""
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"session name {name!r}: use letters, digits and _.- (64 at most)", param="session"
        )
    return directory / f"{name}.json"


def new_session(directory: Path) -> SessionFile:
    """An unused name made of the present minute."""
    stem = f"{datetime.now():%Y-%m-%d-%H%M}"
    return SessionFile(_free_path(directory, stem))


def names(directory: Path) -> list[str]:
    """Saved sessions, latest first."""
    found = [(path.stat().st_mtime_ns, path.stem) for path in _files(directory)]
    return [name for _, name in sorted(found, reverse=True)]


def save(session: SessionFile, conversation: Conversation) -> bool:
    """Write the conversation; True if it had to take another name to spare a foreign change."""
    try:
        moved = _stamp(session.path) != session.seen
        if moved:  # another chat wrote this session meanwhile: keep both
            session.path = _free_path(session.path.parent, session.name)
        _replace(session.path, _encode(conversation))
        session.seen = _stamp(session.path)
    except OSError as error:
        raise KimiLocalError(
            f"session {session.name} not saved: {error.strerror} ({session.path.parent})"
        ) from None
    return moved


def load(path: Path) -> tuple[SessionFile, Conversation]:
    """The conversation in a file; ConfigError says what is wrong with it."""
    name = path.stem
    try:
        stamp, data = _read(path)
        document = json.loads(data)
        conversation = _decode(document)
    except OSError as error:
        raise ConfigError(f"session {name}: {error.strerror} ({path})") from None
    except (ValueError, RecursionError) as error:  # json and UTF-8 errors are ValueErrors
        raise ConfigError(f"session {name} is not readable: {error} ({path})") from None
    except RequestError as error:
        raise ConfigError(f"session {name} is damaged: {error} ({path})") from None
    return SessionFile(path, stamp), conversation


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.glob("*.json") if _NAME.fullmatch(path.stem)]


def _free_path(directory: Path, stem: str) -> Path:
    path, number = directory / f"{stem}.json", 2
    while path.exists():
        path, number = directory / f"{stem}-{number}.json", number + 1
    return path


def _stamp(path: Path) -> _Stamp | None:
    with suppress(FileNotFoundError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size
    return None


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        _sync_directory(path.parent)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(conversation: Conversation) -> bytes:
    document = {
        "version": VERSION,
        "system": conversation.system,
        "thinking": conversation.thinking,
        "sampling": conversation.sampling,
        "tools": conversation.tools,
        "messages": [_pack(message) for message in conversation.messages],
    }
    return json.dumps(document, indent=1).encode()


def _pack(message: Message) -> dict[str, Any]:
    bare = replace(message, attachments=())  # asdict would copy every pixel of them
    packed = {
        key: value for key, value in asdict(bare).items() if value or key in ("role", "content")
    }
    if message.attachments:
        packed["attachments"] = [_pack_attachment(a) for a in message.attachments]
    return packed


def _pack_attachment(attachment: Attachment) -> dict[str, Any]:
    return {
        "kind": attachment.kind,
        "path": str(attachment.path),
        "size": attachment.size,
        "sha256": attachment.sha256,
    }


def _read(path: Path) -> tuple[_Stamp, bytes]:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise RequestError("not a regular file")
    if status.st_size > MOST_BYTES:
        raise RequestError(f"{status.st_size} bytes; at most {MOST_BYTES} are read")
    return (status.st_mtime_ns, status.st_size), path.read_bytes()


def _decode(document: Any) -> Conversation:
    if not isinstance(document, dict) or document.get("version") != VERSION:
        version = document.get("version") if isinstance(document, dict) else None
        raise RequestError(f"version is {version!r}, this program reads {VERSION}")
    tools = document.get("tools")
    sampling = _typed(document, "sampling", dict, {})
    return Conversation(
        messages=[_unpack(item, i) for i, item in enumerate(_typed(document, "messages", list))],
        system=_typed(document, "system", str, None),
        thinking=_typed(document, "thinking", bool, True),
        tools=None if tools is None else tool_file.checked(tools, "tools"),
        sampling=sampling_options.from_json(sampling.items()),
    )


def _unpack(item: Any, index: int) -> Message:
    if not isinstance(item, dict) or item.get("role") not in get_args(Role):
        raise RequestError(f"message {index} has no known role")
    return Message(
        role=item["role"],
        content=_typed(item, "content", str),
        reasoning=_typed(item, "reasoning", str, ""),
        tool_calls=tuple(_unpack_call(call) for call in _typed(item, "tool_calls", list, [])),
        tool_call_id=_typed(item, "tool_call_id", str, ""),
        partial=_typed(item, "partial", bool, False),
        thought_s=float(_typed(item, "thought_s", (int, float), 0.0)),
        reasoning_tokens=_typed(item, "reasoning_tokens", int, 0),
        attachments=tuple(map(_unpack_attachment, _typed(item, "attachments", list, []))),
    )


def _unpack_call(call: Any) -> ToolCall:
    if not isinstance(call, dict):
        raise RequestError("a tool call is not an object")
    return ToolCall(*(_typed(call, key, str) for key in ("id", "name", "arguments")))


def _unpack_attachment(item: Any) -> Attachment:
    if not isinstance(item, dict) or item.get("kind") not in KINDS:
        raise RequestError("an attachment has no known kind")
    path, sha256 = Path(_typed(item, "path", str)), _typed(item, "sha256", str)
    if not path.is_absolute() or not _SHA256.fullmatch(sha256):
        raise RequestError("an attachment has no absolute path, or no sha256")
    return Attachment(item["kind"], path, _typed(item, "size", int), sha256)


_REQUIRED = object()


def _typed(
    item: dict[str, Any], key: str, kind: type | tuple[type, ...], default: Any = _REQUIRED
) -> Any:
    value = item.get(key)
    if value is None and default is not _REQUIRED:
        return default
    if not isinstance(value, kind):
        raise RequestError(f"{key} is {str(value)[:40]!r}")
    return value
