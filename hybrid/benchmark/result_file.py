"""Reads what `bench --json` wrote: a line about the machine, then a line a row.

Such files are passed around, so nothing in them is believed: bounded size, every field that is used
is checked, and what is wrong is one line with file and number.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hybrid.benchmark.head import FORMAT
from hybrid.errors import RequestError
from hybrid.model_files import shown

MAX_BYTES = 64 << 20
MAX_ROWS = 10_000
MAX_SAMPLES = 100_000
MAX_TEXT = 200
MAX_RATE = 1e12  # tokens per second


@dataclass(frozen=True, slots=True)
class Result:
    """A row, as far as a comparison needs it."""

    test: str
    kind: str
    rates: tuple[float, ...]  # tokens per second of each repetition
    hashes: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        """What a row of another file must have to be compared."""
        return self.test, self.kind


@dataclass(frozen=True, slots=True)
class Results:
    """A file."""

    name: str
    head: Mapping[str, Any]
    rows: tuple[Result, ...]


def read_results(path: Path) -> Results:
    """Read a file whole; RequestError where it is not one of ours."""
    lines = _lines(path)
    values = [_json(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not values or values[0].get("bench") != FORMAT:
        raise RequestError(
            f"{path} does not begin with the line that `kimi-local bench --json` writes; "
            "give two such files",
            "files",
        )
    rows = tuple(_row(path, number, value) for number, value in enumerate(values[1:], 2))
    keys = [row.key for row in rows]
    if len(set(keys)) < len(keys):
        raise RequestError(f"{path} has a row twice; give the file of a single run", "files")
    return Results(path.name, values[0], rows)


def _lines(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}", "files") from None
    lines = data.split(b"\n")
    if len(data) > MAX_BYTES or len(lines) > MAX_ROWS:
        raise RequestError(f"{path} is too large for the file of a benchmark", "files")
    return lines


def _json(path: Path, number: int, line: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        _refuse(path, number, "is no JSON")
    if not isinstance(value, dict):
        _refuse(path, number, f"is {shown(value)}; expected an object")
    return value


def _row(path: Path, number: int, value: Mapping[str, Any]) -> Result:
    for key in ("test", "kind"):
        text = value.get(key)
        if not (isinstance(text, str) and text.isprintable() and 0 < len(text) <= MAX_TEXT):
            _refuse(path, number, f"has {key} {shown(text)}; expected a short text")
    rates = value.get("samples_ts")
    if not (isinstance(rates, list) and 0 < len(rates) <= MAX_SAMPLES and all(map(_rate, rates))):
        _refuse(path, number, f"has samples_ts {shown(rates)}; expected tokens per second")
    hashes = value.get("sample_hashes", [])
    if not (isinstance(hashes, list) and all(isinstance(each, str) for each in hashes)):
        _refuse(path, number, f"has sample_hashes {shown(hashes)}; expected a list of texts")
    return Result(value["test"], value["kind"], tuple(map(float, rates)), tuple(hashes))


def _rate(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 < value <= MAX_RATE and math.isfinite(value)


def _refuse(path: Path, number: int, what: str) -> NoReturn:
    raise RequestError(f"{path}: line {number} {what}", "files")
