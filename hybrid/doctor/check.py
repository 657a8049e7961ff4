"""One thing that was looked at."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """What was found, whether it is as it should be, and if not, what mends it."""

    name: str
    ok: bool | None  # None: does not apply, or nobody can tell here
    found: str
    fix: str = ""  # a command or a setting; empty unless the check failed

    def to_json(self) -> dict[str, Any]:
        """The contract's keys (design §6)."""
        return asdict(self)


def good(name: str, found: str) -> Check:
    """As it should be."""
    return Check(name, True, found)


def bad(name: str, found: str, fix: str) -> Check:
    """Not as it should be."""
    return Check(name, False, found, fix)


def none(name: str, found: str) -> Check:
    """Does not apply, or cannot be known."""
    return Check(name, None, found)


def gigabytes(nbytes: float | None) -> str:
    """A size for a line of text."""
    if nbytes is None:
        return "unknown"
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:,.1f} MB"
