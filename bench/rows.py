"""Samples in, table and JSON lines out; nothing here measures anything.

A sample is what one timed step did and how long it took. Samples of one `Subject` become a row:
medians with the lowest and highest, and the share of what the machine itself did in the same run.
Each row is one line of JSON, after a first line about hardware and software:

    {"bench": "kernels", "environment": {...}, ...}
    {"engine": "ours", "what": "decode", "tokens": 1, ..., "gb_s": [median, low, high], ...}
"""

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is timed: one line of the table."""

    engine: str  # MACHINE, "ours" or a peer
    what: str  # "read", "streams", "peak", "decode" or "prefill"
    threads: int
    isa: str = ""
    activation: str = ""
    tokens: int = 0
    experts: int = 0  # among how many the router chooses


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed step; of reads only the bytes count, of `peak` only the operations."""

    seconds: float
    nbytes: int = 0  # of weights: the records of distinct experts
    macs: int = 0
    distinct: int = 0  # experts


@dataclass(frozen=True, slots=True)
class Spread:
    """Of several samples."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """A subject with its figures; None where a figure has no meaning."""

    subject: Subject
    distinct: float
    milliseconds: Spread
    gb_s: Spread | None
    gflop_s: Spread | None
    of_read: float | None
    of_peak: float | None
    samples_ms: list[float]


Samples = Mapping[Subject, list[Sample]]


def spread(values: Iterable[float]) -> Spread:
    """Median, lowest and highest."""
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1])


def rows(samples: Samples) -> list[Row]:
    """One row a subject, in the order of their first samples."""
    read = {s.threads: gb_s(taken) for s, taken in samples.items() if s.what == "read"}
    peaks = {s: gflop_s(taken) for s, taken in samples.items() if s.what == "peak"}
    return [
        Row(
            subject,
            statistics.median(sample.distinct for sample in taken),
            spread(1e3 * sample.seconds for sample in taken),
            gb_s(taken),
            gflop_s(taken),
            _share(gb_s(taken), read.get(subject.threads), subject),
            _share(gflop_s(taken), _peak(subject, peaks), subject),
            [1e3 * sample.seconds for sample in taken],
        )
        for subject, taken in samples.items()
    ]


def _peak(subject: Subject, peaks: Mapping[Subject, Spread | None]) -> Spread | None:
    """The loop of the subject's instruction set; where there is none, the run's fastest loop."""
    found = {s.isa: best for s, best in peaks.items() if best and s.threads == subject.threads}
    fastest = max(found.values(), key=lambda best: best.median, default=None)
    return found.get(subject.isa, fastest)


def gb_s(taken: list[Sample]) -> Spread | None:
    """GB of weights per second; None where none are read."""
    if not taken[0].nbytes:
        return None
    return spread(sample.nbytes / sample.seconds / 1e9 for sample in taken)


def gflop_s(taken: list[Sample]) -> Spread | None:
    """Two operations for each multiply-accumulate; None where there are none."""
    if not taken[0].macs:
        return None
    return spread(2 * sample.macs / sample.seconds / 1e9 for sample in taken)


def _share(own: Spread | None, best: Spread | None, subject: Subject) -> float | None:
    """Part of what the machine does; medians over medians, since noise hits both alike."""
    if own is None or best is None or subject.engine == MACHINE:
        return None
    return own.median / best.median


COLUMNS = "engine", "what", "isa", "activation", "threads", "experts", "tokens"
HEADINGS = ("engine", "what", "isa", "act", "thr", "of", "tokens", "experts",
            "ms", "GB/s", "low", "high", "of read",
            "GFLOP/s", "low", "high", "of peak")  # fmt: skip


def table(found: list[Row]) -> list[str]:
    """The rows as text lines under a heading, columns aligned."""
    lines = [HEADINGS, *(_cells(row) for row in found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    left = 4  # columns of words
    return [
        " ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _cells(row: Row) -> tuple[str, ...]:
    words = (str(getattr(row.subject, name) or "") for name in COLUMNS)
    return (
        *words, f"{row.distinct:.0f}" if row.distinct else "", f"{row.milliseconds.median:.2f}",
        *_figures(row.gb_s), _percent(row.of_read), *_figures(row.gflop_s), _percent(row.of_peak),
    )  # fmt: skip


def _figures(of: Spread | None) -> tuple[str, str, str]:
    return ("", "", "") if of is None else (f"{of.median:.1f}", f"{of.low:.1f}", f"{of.high:.1f}")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def json_lines(head: dict[str, object], found: list[Row]) -> list[str]:
    """The line about the machine, then one a row."""
    return [json.dumps(head), *(json.dumps(_plain(row)) for row in found)]


def _plain(row: Row) -> dict[str, object]:
    fields = asdict(row)
    plain: dict[str, object] = fields.pop("subject")
    for name, value in fields.items():
        if isinstance(value, dict):
            plain[name] = [round(number, 4) for number in value.values()]
        elif isinstance(value, list):
            plain[name] = [round(number, 4) for number in value]
        else:
            plain[name] = round(value, 4) if isinstance(value, float) else value
    return plain
