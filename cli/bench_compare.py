"""Two runs of a benchmark side by side, as text and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from cli.figures import columns
from cli.terminal_text import one_line
from hybrid.benchmark import Compared, Comparison

HEAD = ("test", "prompts", "A tok/s", "B tok/s", "B / A", "95 %", "verdict")
_MOST = 60  # characters of a setting


def text(found: Compared) -> str:
    """The table."""
    return columns([HEAD, *map(_cells, found.rows)])


def warnings(found: Compared) -> Iterator[str]:
    """What else a reader must know, a line each."""
    for name, (a, b) in found.differing.items():
        yield f"differs: {one_line(name)}  {_short(a)} | {_short(b)}"
    for row in found.unmatched:
        yield f"in one file only: {one_line(row)}"
    others = [f"{row.test} {row.kind}" for row in found.rows if row.same_output is False]
    if others:
        yield (
            f"the outputs differ ({one_line(', '.join(others))}): A and B computed different "
            "things, so their speeds say nothing about each other"
        )
    elif any(row.same_output is None for row in found.rows):
        yield "the outputs were not compared: no hashes, or prompts of another seed or feed"


def document(found: Compared) -> dict[str, Any]:
    """What --json prints."""
    return {
        "rows": [asdict(row) | {"inside_noise": row.inside_noise} for row in found.rows],
        "differing": {name: list(pair) for name, pair in found.differing.items()},
        "unmatched": list(found.unmatched),
    }


def _cells(row: Comparison) -> tuple[str, ...]:
    interval = "" if row.low is None else f"{row.low:.3f} ... {row.high:.3f}"
    return (
        row.test,
        row.kind,
        f"{row.medians[0]:.2f}",
        f"{row.medians[1]:.2f}",
        f"{row.ratio:.3f}",
        interval,
        _verdict(row),
    )


def _verdict(row: Comparison) -> str:
    if row.inside_noise is None:
        return f"too few samples ({min(row.samples)}; run with -r 5)"
    if row.inside_noise:
        return "inside the noise"
    return f"{'faster' if row.ratio > 1 else 'slower'} by {abs(row.ratio - 1):.1%}"


def _short(value: object) -> str:
    line = one_line(str(value))
    return line if len(line) <= _MOST else line[: _MOST - 3] + "..."
