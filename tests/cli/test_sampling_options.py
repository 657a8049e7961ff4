"""One table of sampling settings for flags, /set and session files."""

from dataclasses import fields

import pytest

from cli import sampling_options
from cli.sampling_options import KNOBS, from_json, parse
from hybrid import SamplingParams, sampling
from hybrid.errors import RequestError


def test_every_parameter_of_the_engine_has_a_knob_but_logprobs():
    assert set(KNOBS) == {field.name for field in fields(SamplingParams)} - {"logprobs"}


def test_the_defaults_shown_are_the_engines():
    assert (KNOBS["temperature"].thinking, KNOBS["top_p"].thinking) == tuple(
        map(str, sampling.THINKING)
    )
    assert (KNOBS["temperature"].instant, KNOBS["top_p"].instant) == tuple(
        map(str, sampling.INSTANT)
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "0.7", 0.7),
        ("top_k", "40", 40),
        ("seed", "0", 0),
        ("stop", '"a b" c', ("a b", "c")),
        ("presence_penalty", "-1.5", -1.5),
    ],
)
def test_typed_values(name, text, value):
    assert parse(name, text) == value
    sampling_options.params({name: value})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("temperature", "warm"),
        ("temperature", "inf"),
        ("temperature", "101"),
        ("top_p", "0"),
        ("top_p", "1.01"),
        ("top_k", "1.5"),
        ("max_tokens", "0"),
        ("seed", "-1"),
        ("stop", '"unbalanced'),
        ("stop", '""'),
        ("repetition_penalty", "0"),
        ("frequency_penalty", "3"),
    ],
)
def test_bad_values_name_the_setting(name, text):
    with pytest.raises(RequestError, match=name) as caught:
        parse(name, text)
    assert caught.value.param == name


@pytest.mark.parametrize("name", KNOBS)
def test_what_a_knob_accepts_the_engine_accepts(name):
    """The ends of each range are legal on both sides."""
    kind = KNOBS[name].type
    for end in (getattr(kind, "min", None), getattr(kind, "max", None)):
        if end is not None:
            value = end if not (end == kind.min and kind.min_open) else end + 1e-6
            sampling_options.params(
                {name: sampling_options.KNOBS[name].type.convert(value, None, None)}
            )


def test_session_values_go_through_the_same_gate():
    assert from_json([("stop", ["a"]), ("top_k", 3)]) == {"stop": ("a",), "top_k": 3}
