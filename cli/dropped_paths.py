"""Pictures and videos named in what was typed: a file dropped on a terminal arrives as text.

    'my board.png'   /a/my\\ board.png   file:///a/my%20board.png   ~/a.png   /a/my board.png

A word counts only if it has a slash in it, a file is there, and the file's suffix or first bytes
say picture or video; everything else stays what was typed.
"""

import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from cli.attachments import Kind, shown_name

SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp"), "image"),
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"), "video"),
}
_MOST_TRIED = 64  # words of one text that are looked up on the disk
_LONGEST = 4096  # characters of a path, as Linux has it
_HEAD = 12  # bytes that tell a format
_QUOTES = "\"'"
_CLOSING = ".,;:!?)]}>"  # what a sentence puts behind a path
_START = re.compile(  # of a path, at the beginning of a word
    r"""(?<![^\s(\[{<'"])(?:"[^"\n]{0,300}/|'[^'\n]{0,300}/|file:/|~[\w.-]*/|[^\s'"/]{0,255}/)"""
)
_SHELL_WORD = re.compile(r"""(?:\\.|'[^'\n]*'|"(?:\\.|[^"\\\n])*"|[^\s\\'"])+""")
_FILE_URL = re.compile(r"file:(?://(?:localhost)?)?(/.*)")
_BARE_WORD = re.compile(r"\S+")
_SUFFIX_END = re.compile(
    rf"(?:{'|'.join(map(re.escape, SUFFIXES))})(?=$|[\s{re.escape(_CLOSING + _QUOTES)}])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Mention:
    """A file named in text[start:end]."""

    start: int
    end: int
    kind: Kind
    path: Path


def mentions(text: str) -> list[Mention]:
    """The pictures and videos that a text names, in its order; the disk is asked a bounded time."""
    found: list[Mention] = []
    position = 0
    for _ in range(_MOST_TRIED):
        match = _START.search(text, position)
        if match is None:
            break
        mention = _mention(text, match.start())
        if mention is not None:
            found.append(mention)
        position = mention.end if mention is not None else match.start() + 1
    return found


def without_paths(text: str, found: Iterable[Mention]) -> str:
    """The text with names for paths; nothing where it held nothing else."""
    parts, words, position = [], "", 0
    for mention in found:
        before = text[position : mention.start]
        parts += [before, shown_name(mention.path)]
        words, position = words + before, mention.end
    words += text[position:]
    return "".join([*parts, text[position:]]).strip() if words.strip() else ""


def argument_paths(argument: str) -> list[Path]:
    """The files that the argument of a command names: one as typed, or several as dropped."""
    if _exists(whole := _path(argument)):
        return [whole]
    try:
        words = shlex.split(argument)
    except ValueError:  # an apostrophe that is part of a name
        words = []
    paths = [_path(word) for word in words]
    return paths if paths and all(map(_exists, paths)) else [whole]


def names_media(word: str) -> bool:
    """Whether a word ends as the name of a picture or video does; the disk is not asked."""
    return Path(word).suffix.lower() in SUFFIXES


def _mention(text: str, start: int) -> Mention | None:
    for end, spelling in _spellings(text, start):
        path = _path(spelling)
        kind = _kind(path)
        if kind is not None:
            return Mention(start, end, kind, path)
    return None


def _spellings(text: str, start: int) -> Iterator[tuple[int, str]]:
    """The ways to read a path at `start`, each with where it ends: quoted, bare, with spaces."""
    line_end = text.find("\n", start)
    end = min(len(text) if line_end < 0 else line_end, start + _LONGEST)
    if match := _SHELL_WORD.match(text, start, end):
        for word in _with_and_without_closing(match[0]):
            try:
                read = shlex.split(word)
            except ValueError:  # a quote that the trimming has opened
                continue
            if len(read) == 1:
                yield start + len(word), read[0]
    if match := _BARE_WORD.match(text, start, end):
        for word in _with_and_without_closing(match[0]):
            yield start + len(word), word
    for match, _ in zip(_SUFFIX_END.finditer(text, start, end), range(8), strict=False):
        yield match.end(), text[start : match.end()]


def _with_and_without_closing(word: str) -> list[str]:
    bare = word.rstrip(_CLOSING)
    return [w for w in dict.fromkeys((word, bare, bare.rstrip(_CLOSING + _QUOTES))) if "/" in w]


def _path(text: str) -> Path:
    """A path as written, with `~`, or as a file: URL."""
    if url := _FILE_URL.fullmatch(text):
        text = unquote(url[1])
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user: then no such file either
        return Path(text)


def _exists(path: Path) -> bool:
    return _mode(path) is not None


def _kind(path: Path) -> Kind | None:
    """What a file is by suffix or, failing that, by its first bytes; None if it is no such file."""
    mode = _mode(path)
    if mode is None or not stat.S_ISREG(mode):
        return None
    by_name = SUFFIXES.get(path.suffix.lower())
    return by_name if by_name is not None else _by_magic(path)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a NUL, a lone surrogate
        return None


def _by_magic(path: Path) -> Kind | None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")):
        return "image"
    if head[:4] == b"RIFF":
        forms: dict[bytes, Kind] = {b"WEBP": "image", b"AVI ": "video"}
        return forms.get(head[8:12])
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # two letters alone begin many a text
        return "image"
    return "video" if head[4:8] == b"ftyp" or head[:4] == b"\x1a\x45\xdf\xa3" else None
