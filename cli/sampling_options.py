"""The sampling settings, in one table: the flags of `chat`, `/set` and session files all read it.

Only what the user asked for is kept (name -> value); everything else stays the model's default
for the mode (spec §7).
"""

import math
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click

import hybrid
from hybrid.errors import RequestError

Overrides = dict[str, Any]


class FiniteRange(click.FloatRange):
    """A float range that also refuses nan and inf, which compare false with any bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or a usage error."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting: its range, its meaning, and the model's default when thinking and when not."""

    name: str
    type: click.ParamType[Any]
    help: str
    thinking: str
    instant: str
    many: bool = False


def _knob(name: str, kind: click.ParamType[Any], text: str, *defaults: str) -> Knob:
    return Knob(name, kind, text, defaults[0], defaults[-1])


KNOBS = {
    knob.name: knob
    for knob in (
        _knob("temperature", FiniteRange(0, 100), "0 is greedy", "1.0", "0.6"),
        _knob("top_p", FiniteRange(0, 1, min_open=True), "nucleus: this much mass", "0.95"),
        _knob("top_k", click.IntRange(0, 2**31), "the K likeliest, 0: all", "0"),
        _knob("min_p", FiniteRange(0, 1), "least share of the likeliest", "0.0"),
        _knob(
            "max_tokens",
            click.IntRange(1, 2**31),
            "longest answer in tokens",
            "no limit",
        ),
        _knob("seed", click.IntRange(0, 2**63 - 1), "same seed, same answer", "random"),
        Knob("stop", click.STRING, "end the answer at this text", "none", "none", many=True),
        _knob("repetition_penalty", FiniteRange(0, 100, min_open=True), "1 is none", "1.0"),
        _knob("presence_penalty", FiniteRange(-2, 2), "0 is none", "0.0"),
        _knob("frequency_penalty", FiniteRange(-2, 2), "0 is none", "0.0"),
    )
}


def sampling_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that adds one flag a knob; the flags arrive as keyword arguments."""
    for knob in reversed(KNOBS.values()):
        add = click.option(
            f"--{knob.name.replace('_', '-')}",
            type=knob.type,
            multiple=knob.many,
            help=f"{knob.help}{'; repeatable' if knob.many else ''} [default: {default(knob)}]",
        )
        command = add(command)
    return command


def default(knob: Knob) -> str:
    """The default as text, by mode where the modes differ."""
    if knob.thinking == knob.instant:
        return knob.thinking
    return f"{knob.thinking} thinking, {knob.instant} instant"


def given(flags: Mapping[str, Any]) -> Overrides:
    """The overrides among a command's keyword arguments."""
    return {name: flags[name] for name in KNOBS if flags.get(name) not in (None, ())}


def parse(name: str, text: str) -> Any:
    """The value of a knob from what was typed after `/set NAME`; RequestError if it is no good."""
    knob = KNOBS[name]
    if knob.many:
        return _stops(text)
    return _convert(knob, text)


def from_json(pairs: Iterable[tuple[str, Any]]) -> Overrides:
    """Overrides out of a session file; RequestError if one is unknown or out of range."""
    overrides: Overrides = {}
    for name, value in pairs:
        if name not in KNOBS:
            raise RequestError(f"sampling setting {name!r} is unknown", param=name)
        if KNOBS[name].many:
            if not isinstance(value, list) or not all(isinstance(stop, str) for stop in value):
                raise RequestError(f"{name} is {value!r}; it must be a list of texts", param=name)
            overrides[name] = tuple(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            overrides[name] = _convert(KNOBS[name], value)
        else:
            raise RequestError(f"{name} is {value!r}; it must be a number", param=name)
    return overrides


def params(overrides: Overrides) -> "hybrid.SamplingParams":
    """What the engine takes."""
    return hybrid.SamplingParams(**overrides)


def _convert(knob: Knob, value: Any) -> Any:
    try:
        return knob.type.convert(value, None, None)
    except click.BadParameter as error:
        raise RequestError(f"{knob.name}: {error.message}", param=knob.name) from None


def _stops(text: str) -> tuple[str, ...]:
    try:
        stops = tuple(shlex.split(text))
    except ValueError as error:
        raise RequestError(f'stop: {error}; write /set stop "some text"', param="stop") from None
    if not all(stops):
        raise RequestError("stop: an empty text would end every answer at once", param="stop")
    return stops
