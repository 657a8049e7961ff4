"""Stop strings in a stream against the search of the whole text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.chat.stop import StopStrings
from tests.reference.chat_strategies import PATIENT


def naive(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Cut at the stop string that is complete first, the longest one of several."""
    for end in range(len(text) + 1):
        for stop in sorted(filter(None, stops), key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)], stop
    return text, None


def streamed(pieces: list[str], stops: list[str]) -> tuple[str, str | None]:
    watch = StopStrings(stops)
    out = ""
    for piece in pieces:
        safe, hit = watch.push(piece)
        out += safe
        if hit is not None:
            return out, hit
    return out + watch.flush(), None


letters = st.text("ab", max_size=5)


@settings(PATIENT, max_examples=500)
@given(st.lists(letters, max_size=8), st.lists(letters, max_size=4))
def test_any_stream_equals_the_whole_text(pieces, stops):
    assert streamed(pieces, stops) == naive("".join(pieces), stops)


@settings(PATIENT, max_examples=300)
@given(st.lists(letters, max_size=8), st.lists(letters, min_size=1, max_size=4))
def test_only_what_may_become_a_stop_is_held_back(pieces, stops):
    watch = StopStrings(stops)
    seen, out = "", ""
    for piece in pieces:
        safe, hit = watch.push(piece)
        if hit is not None:
            return
        seen, out = seen + piece, out + safe
        held = seen[len(out) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)
        longer = [seen[-k:] for k in range(len(held) + 1, len(seen) + 1)]
        assert not any(stop.startswith(tail) for stop in stops for tail in longer if stop != tail)


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["one\n", "\ntwo"], ["\n\n"], ("one", "\n\n")),
        (["aa", "ab"], ["aab"], ("a", "aab")),
        (["abc"], ["bc", "abc"], ("", "abc")),
        (["abcd"], ["abcd", "bc"], ("a", "bc")),
        (["🎉🎉!"], ["🎉!"], ("🎉", "🎉!")),
        (["abc"], [], ("abc", None)),
        (["abc"], [""], ("abc", None)),
    ],
)
def test_examples(pieces, stops, expected):
    assert streamed(pieces, stops) == expected


def test_nothing_comes_after_a_hit():
    watch = StopStrings(["x"])
    assert watch.push("axb") == ("a", "x")
    assert watch.push("more") == ("", "x")
    assert watch.flush() == ""


def test_searching_each_piece_alone_is_caught():
    """The planted fault: a stop string cut by a token boundary."""

    def planted(pieces: list[str], stop: str) -> str:
        return "".join(piece.split(stop)[0] for piece in pieces)

    assert planted(["one\n", "\ntwo"], "\n\n") != naive("one\n\ntwo", ["\n\n"])[0]
