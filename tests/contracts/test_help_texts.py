"""The documents show the help that the commands print, and every command and slash command."""

import pytest

from cli import main
from cli.chat_commands import COMMANDS
from tests.contracts.files import ROOT
from tests.contracts.help_texts import DOCUMENTS, with_help


def document(name=DOCUMENTS[0]) -> str:
    return (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("name", DOCUMENTS, ids=str)
def test_help_texts_are_true(name):
    assert with_help(document(name)) == document(name), "run: just docs"


def test_every_command_is_shown():
    text = "".join(map(document, DOCUMENTS))
    assert not [name for name in main.COMMANDS if f"<!-- help: {name}" not in text]


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
