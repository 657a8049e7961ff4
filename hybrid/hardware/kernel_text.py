"""Small texts under /sys and /proc; what is missing or cannot be read counts as empty."""

import re
from pathlib import Path

LONGEST = 1 << 16  # characters of a file that are looked at: one CPU's part of /proc/cpuinfo is 2 k
SHOWN = 200  # of a name that a description keeps
_SIZE = re.compile(r"(\d{1,12})([KMG]?)B?")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def text(path: Path) -> str:
    """The beginning of a file, without blanks around it."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LONGEST).strip()
    except (OSError, ValueError):  # ValueError: a path that no file can have
        return ""


def number(path: Path) -> int | None:
    """A file that holds one whole number."""
    found = text(path)
    return int(found) if found.isascii() and found.isdigit() and len(found) < 19 else None


def size(path: Path) -> int | None:
    """Bytes of a file that says "32768K"."""
    found = _SIZE.fullmatch(text(path))
    return int(found[1]) * _UNITS[found[2]] if found else None


def field(lines: str, name: str) -> str | None:
    """What stands behind "name :" in the first line that has it."""
    for line in lines.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name and value.strip():
            return value.strip()
    return None


def name(found: str | None) -> str | None:
    """A name as a description keeps it: printable, one line, short; None if nothing is left."""
    kept = " ".join("".join(c if c.isprintable() else " " for c in found or "").split())
    return kept[:SHOWN].strip() or None
