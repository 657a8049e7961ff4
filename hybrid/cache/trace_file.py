"""Routing traces: which experts every token chose in every layer, as lines of JSON.

recorded   {"trace": 1, "model": "...", "layers": 60, "experts": 384, "k": 8, "record_bytes": 4608}
           {"step": 0, "layer": 1, "ids": [3, 71, ...], "weights": [0.4, ...], "prompt": true}
           one line a token and layer, the header first; `hybrid.cache.recorder` writes it
compact    {"tok": 0, "layers": [[36, 38, ...], [51, 139, ...], ...]}
           one line a token, all of them decoded

A trace may come from anywhere: every line is checked, its length is bounded, and so is the sum.
What an interruption leaves is read as far as all layers go; `notes` says what was dropped.
"""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hybrid.errors import RequestError

VERSION = 1
MAX_LINE = 1 << 20  # bytes; a token of K2.5 takes 3 kB in the compact form
MAX_IDS = 1 << 25  # 128 MiB as int32: 70,000 tokens of K2.5
MAX_EXPERTS = 1 << 14
MAX_LAYERS = 1 << 10
MAX_RECORD_BYTES = 1 << 40
MAX_STEP = 1 << 40


@dataclass(frozen=True, slots=True)
class Trace:
    """What was chosen, token by token."""

    picks: NDArray[np.int32]  # [tokens, layers, k], -1: none
    prompt: NDArray[np.bool_]  # [tokens] whether it was read rather than decoded
    experts: int  # in a layer
    record_bytes: int | None = None  # of one expert, where the file says it
    model: str = ""
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> int:
        """Layers with routed experts."""
        return int(self.picks.shape[1])


@dataclass(slots=True)
class _Rows:
    """What has been read of one layer."""

    ids: "array[int]" = field(default_factory=lambda: array("i"))
    steps: "array[int]" = field(default_factory=lambda: array("q"))
    prompt: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class _Reading:
    """The state of reading: `line` and `path` are for messages."""

    path: Path
    line: int = 0
    header: dict[str, Any] = field(default_factory=dict)
    k: int = 0
    rows: dict[int, _Rows] = field(default_factory=dict)
    ids: int = 0
    compact: bool | None = None
    notes: list[str] = field(default_factory=list)


def read_trace(path: Path) -> Trace:
    """Read a trace of either form; RequestError naming file and line for anything else."""
    reading = _Reading(path)
    try:
        if not path.is_file():
            raise RequestError(f"{path} is not a file; a trace is one", "trace")
        for entry in _entries(reading):
            _take(reading, entry)
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}", "trace") from None
    return _trace(reading)


def _entries(reading: _Reading) -> Iterator[dict[str, Any]]:
    """The objects of the file; a torn last line is left out with a note."""
    with reading.path.open("rb") as file:
        while raw := file.readline(MAX_LINE + 1):
            reading.line += 1
            if len(raw) > MAX_LINE:
                _refuse(reading, f"the line is longer than {MAX_LINE} bytes")
            whole = raw.endswith(b"\n")
            try:
                entry = json.loads(raw.decode())
            except (ValueError, RecursionError):
                if whole:
                    _refuse(reading, "not a line of JSON")
                reading.notes.append(f"line {reading.line} is torn and was dropped")
                return
            if not isinstance(entry, dict):
                _refuse(reading, "not a JSON object")
            yield entry


def _take(reading: _Reading, entry: dict[str, Any]) -> None:
    """Check one object and keep what it says."""
    if "trace" in entry:
        _take_header(reading, entry)
        return
    compact = "layers" in entry
    if reading.compact is None:
        reading.compact = compact
    if compact is not reading.compact:
        _refuse(reading, 'lines with "layers" and lines with "layer" do not mix')
    if compact:
        _take_token(reading, entry)
    else:
        prompt = entry.get("prompt", False)
        if not isinstance(prompt, bool):
            _refuse(reading, f'"prompt" is {_shown(prompt)}; it must be true or false')
        layer = _whole(reading, entry, "layer", 0, MAX_LAYERS - 1)
        step = _whole(reading, entry, "step", 0, MAX_STEP)
        _keep(reading, layer, step, entry.get("ids"), prompt=prompt)


def _take_header(reading: _Reading, entry: dict[str, Any]) -> None:
    if reading.line != 1:
        _refuse(reading, "a header belongs in the first line")
    if entry["trace"] != VERSION:
        _refuse(reading, f"trace version {_shown(entry['trace'])}; this program reads {VERSION}")
    for name, most in (("experts", MAX_EXPERTS), ("k", MAX_EXPERTS)):
        _whole(reading, entry, name, 1, most)
    for name, most in (("layers", MAX_LAYERS), ("record_bytes", MAX_RECORD_BYTES)):
        if name in entry:
            _whole(reading, entry, name, 1, most)
    reading.header, reading.k = entry, entry["k"]


def _take_token(reading: _Reading, entry: dict[str, Any]) -> None:
    step = _whole(reading, entry, "tok", 0, MAX_STEP)
    layers = entry["layers"]
    if not isinstance(layers, list) or not 1 <= len(layers) <= MAX_LAYERS:
        _refuse(reading, f'"layers" must be a list of 1 to {MAX_LAYERS} lists of expert ids')
    if reading.rows and len(layers) != len(reading.rows):
        _refuse(reading, f"{len(layers)} layers where the lines before have {len(reading.rows)}")
    for layer, ids in enumerate(layers):
        _keep(reading, layer, step, ids, prompt=False)


def _keep(reading: _Reading, layer: int, step: int, ids: Any, *, prompt: bool) -> None:
    """Append the choice of one token in one layer."""
    if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_EXPERTS:
        _refuse(reading, f"expert ids are {_shown(ids)}; they must be a list of whole numbers")
    reading.k = reading.k or len(ids)
    if len(ids) != reading.k:
        _refuse(reading, f"{len(ids)} expert ids where the others have {reading.k}")
    experts = reading.header.get("experts", MAX_EXPERTS)
    for number in ids:
        if type(number) is not int or not -1 <= number < experts:
            _refuse(reading, f"expert {_shown(number)}; ids are whole numbers below {experts}")
    chosen = [number for number in ids if number >= 0]
    if len(set(chosen)) < len(chosen):
        _refuse(reading, f"a token chooses an expert twice: {_shown(ids)}")
    reading.ids += len(ids)
    if reading.ids > MAX_IDS:
        _refuse(reading, f"more than {MAX_IDS} expert ids; cut the file into parts")
    rows = reading.rows.setdefault(layer, _Rows())
    rows.ids.extend(ids)
    rows.steps.append(step)
    rows.prompt.append(prompt)


def _trace(reading: _Reading) -> Trace:
    """The layers side by side, as far as the shortest goes."""
    rows = [reading.rows[layer] for layer in sorted(reading.rows)]
    tokens = min((len(each.steps) for each in rows), default=0)
    if len(rows) < reading.header.get("layers", 0):
        tokens = 0
    if tokens == 0:
        raise RequestError(f"{reading.path} holds no token of all layers; record again", "trace")
    dropped = sum(len(each.steps) - tokens for each in rows)
    if dropped:
        reading.notes.append(f"{dropped} lines of tokens that not all layers have were dropped")
    for layer, each in zip(sorted(reading.rows), rows, strict=True):
        if each.steps[:tokens] != rows[0].steps[:tokens]:
            raise RequestError(
                f"{reading.path}: layer {layer} has other steps than the first layer; "
                "lines are missing from it",
                "trace",
            )
    ids = [np.frombuffer(each.ids, np.int32).reshape(-1, reading.k)[:tokens] for each in rows]
    picks = np.stack(ids, axis=1)  # [tokens, layers, k]
    return Trace(
        picks,
        np.frombuffer(bytes(rows[0].prompt[:tokens]), np.bool_),
        reading.header.get("experts", max(1, int(picks.max()) + 1)),
        reading.header.get("record_bytes"),
        str(reading.header.get("model", "")),
        tuple(reading.notes),
    )


def _whole(reading: _Reading, entry: dict[str, Any], name: str, least: int, most: int) -> int:
    """A whole number of the object."""
    value = entry.get(name)
    if type(value) is not int or not least <= value <= most:
        _refuse(reading, f'"{name}" is {_shown(value)}; it must be a whole number from {least}')
    return value


def _refuse(reading: _Reading, reason: str) -> NoReturn:
    raise RequestError(f"{reading.path}:{reading.line}: {reason}", "trace")


def _shown(value: Any) -> str:
    """Foreign data as a few ASCII characters."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # a number of too many digits, lists in lists
        return type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
