"""Whether two runs differ by more than their noise, and whether they computed the same.

Method: Welch's t test on the logarithms of tokens per second, row by row. The interval of the ratio
B/A has 95 % for all rows together (Bonferroni: each row gets its part of the 5 %), so that twenty
equal rows do not make one "difference". A row is inside the noise if its interval holds 1.

The test knows the noise between the repetitions of a run, and nothing of what a whole run shares: a
hot day, another load, memory that lies elsewhere. Repeat both runs before a few per cent are news.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybrid.benchmark.result_file import Result, Results
from hybrid.benchmark.student import quantile
from hybrid.errors import RequestError

FEWEST = 3  # samples of a row, in both files
ALPHA = 0.05  # of a false alarm in any row
_OF_NOTE = {  # what changes numbers, by part of the first line
    "environment": ("cpu", "commit", "python", "numpy", "numba", "llvmlite", "torch"),
    "model": ("name", "bytes"),
    "asked": ("seed", "feed"),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A row that both files have. `low` to `high` is the interval of `ratio`, if it was judged."""

    test: str
    kind: str
    samples: tuple[int, int]
    medians: tuple[float, float]  # tokens per second
    ratio: float  # B / A, of geometric means
    low: float | None
    high: float | None
    same_output: bool | None  # None: no hashes to compare

    @property
    def inside_noise(self) -> bool | None:
        """Whether the interval holds 1; None where there are too few samples."""
        return None if self.low is None or self.high is None else self.low <= 1 <= self.high


@dataclass(frozen=True, slots=True)
class Compared:
    """Two files."""

    rows: tuple[Comparison, ...]
    differing: Mapping[str, tuple[Any, Any]]  # "options.threads": of A, of B
    unmatched: tuple[str, ...]  # rows of one file only


def compare(a: Results, b: Results) -> Compared:
    """Compare the rows that both have; RequestError if there is none, or none can be judged."""
    others = {row.key: row for row in b.rows}
    pairs = [(row, others[row.key]) for row in a.rows if row.key in others]
    if not pairs:
        raise RequestError(
            f"{a.name} and {b.name} have no row in common; run both with the same -p, -n, -d and "
            "--kind",
            "files",
        )
    judged = sum(_enough(*pair) for pair in pairs)
    if not judged:
        raise RequestError(f"no row has {FEWEST} samples in both files; run with -r 5", "files")
    differing = _differing(a.head, b.head)
    comparable = not any(name.startswith("asked.") for name in differing)
    rows = tuple(_compare(*pair, ALPHA / judged, hashes=comparable) for pair in pairs)
    keys = {row.key for row, _ in pairs}
    alone = tuple(" ".join(row.key) for row in (*a.rows, *b.rows) if row.key not in keys)
    return Compared(rows, differing, alone)


def welch(a: Sequence[float], b: Sequence[float], alpha: float) -> tuple[float, float]:
    """The interval of mean(b) - mean(a) at 1 - alpha; two or more samples each."""
    parts = [statistics.variance(each) / len(each) for each in (a, b)]
    middle, error = statistics.fmean(b) - statistics.fmean(a), math.sqrt(sum(parts))
    if error == 0:
        return middle, middle
    # shares before squares: variances may be so small that their squares are 0
    shares = [part / sum(parts) for part in parts]
    freedom = 1 / sum(
        share**2 / (len(each) - 1) for share, each in zip(shares, (a, b), strict=True)
    )
    reach = quantile(alpha, freedom) * error
    return middle - reach, middle + reach


def _compare(a: Result, b: Result, alpha: float, *, hashes: bool) -> Comparison:
    logs = [[math.log(rate) for rate in row.rates] for row in (a, b)]
    ratio = _exp(statistics.fmean(logs[1]) - statistics.fmean(logs[0]))
    low = high = None
    if _enough(a, b):
        low, high = map(_exp, welch(logs[0], logs[1], alpha))
    return Comparison(
        test=a.test,
        kind=a.kind,
        samples=(len(a.rates), len(b.rates)),
        medians=(statistics.median(a.rates), statistics.median(b.rates)),
        ratio=ratio,
        low=low,
        high=high,
        same_output=_same_output(a, b) if hashes else None,
    )


def _exp(logarithm: float) -> float:
    """Of three samples that have nothing in common a bound can be beyond all numbers."""
    return math.exp(min(logarithm, 700.0))


def _enough(a: Result, b: Result) -> bool:
    return min(len(a.rates), len(b.rates)) >= FEWEST


def _same_output(a: Result, b: Result) -> bool | None:
    """Of the repetitions that both have."""
    pairs = list(zip(a.hashes, b.hashes, strict=False))
    return all(x == y for x, y in pairs) if pairs else None


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    parts = dict(_OF_NOTE) | {"options": tuple({**_part(a, "options"), **_part(b, "options")})}
    found = {}
    for part, names in parts.items():
        one, other = _part(a, part), _part(b, part)
        for name in names:
            if one.get(name) != other.get(name):
                found[f"{part}.{name}"] = one.get(name), other.get(name)
    return found


def _part(head: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = head.get(name)
    return part if isinstance(part, Mapping) else {}
