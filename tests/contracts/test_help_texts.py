"""docs/chat.md shows the help that the commands print, and the slash commands that there are."""

import pytest

from cli.chat_commands import COMMANDS
from tests.contracts.files import ROOT
from tests.contracts.help_texts import DOCUMENT, with_help


def document() -> str:
    return (ROOT / DOCUMENT).read_text("utf-8")


def test_help_texts_are_true():
    assert with_help(document()) == document(), "run: just docs"


def test_a_changed_option_would_be_seen():
    stale = document().replace("  --instant   ", "  --quick     ", 1)
    assert stale != document()
    assert with_help(stale) != stale


def test_a_document_without_help_is_refused():
    with pytest.raises(ValueError, match="shows no help text"):
        with_help("nothing here")


def test_every_slash_command_is_described():
    text = document()
    missing = [name for name in COMMANDS if f"`/{name}" not in text]
    assert not missing
