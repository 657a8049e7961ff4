"""One vocabulary for "how far": loading and prefill report it, every front end shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["kernels", "weights", "experts", "vision", "prefill", "prepare", "verify"]
Unit = Literal["bytes", "tokens", "kernels", "patches"]


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of a phase; a phase ends when they are equal."""

    phase: Phase
    done: int
    total: int
    unit: Unit


ProgressSink = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """Swallow progress: the default sink."""
