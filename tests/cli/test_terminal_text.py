"""No text from a model or a file may drive the terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.terminal_text import Cleaner, clean, one_line
from tests.cli.fake_engine import HOSTILE

CONTROL = {chr(c) for c in [*range(0x20), *range(0x7F, 0xA0)]} - {"\n", "\t"}
NASTY = st.text(
    alphabet=st.sampled_from([*"abm0;[]P\\ 中\n\t\r\x07", "\x1b", "\x9b", "\x9d", "\x9c"])
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 中文 ‮ é\n\ttab", "plain 中文 ‮ é\n\ttab"),
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("a\x1b[38;2;1;2;3mb", "ab"),
        ("a\x1b[?1049hb", "ab"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]52;c;aGk=\x1b\\x", "x"),
        ("\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\", "text"),
        ("\x1bPq...\x1b\\x", "x"),
        ("\x9b2Jx", "x"),
        ("\x9d0;title\x9cx", "x"),
        ("\x1b(Bx", "x"),
        ("\x1bcx", "x"),
        ("one\r\ntwo\rthree", "one\ntwothree"),
        ("back\x08\x08\x7f", "back"),
        ("\x1b\x1b[1mx", "x"),
        ("\x1b]never ended\nthe next line", "\nthe next line"),
        ("ends with \x1b", "ends with "),
    ],
)
def test_sequences_are_removed_and_text_stays(text, shown):
    assert clean(text) == shown


@given(NASTY)
def test_nothing_dangerous_remains(text):
    assert not CONTROL & set(clean(text))


@given(st.lists(NASTY))
def test_pieces_are_cleaned_like_the_whole(pieces):
    cleaner = Cleaner()
    assert "".join(map(cleaner.feed, pieces)) == clean("".join(pieces))


@given(st.text(alphabet=st.characters(blacklist_categories=["Cc", "Cs"])))
def test_harmless_text_is_untouched(text):
    assert clean(text) == text


def test_the_checks_see_a_cleaner_that_forgets_its_state():
    """Planted: cleaning each piece on its own lets a split sequence's tail through."""
    forgetful = "".join(clean(piece) for piece in HOSTILE)
    assert forgetful != clean(HOSTILE) == "safe red end link"


def test_a_message_is_one_line():
    assert one_line("a\nb\x1b[2J\r\n  c") == "a b c"
