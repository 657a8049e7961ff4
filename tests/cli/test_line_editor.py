"""Input: blocks, history and completion, without a terminal."""

import json
import stat

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from cli import line_editor
from cli.line_editor import ChatCompleter, PromptHistory, open_block, unquoted

COMMANDS = [("help", "this list"), ("set", "change"), ("load", "go on"), ("export", "write")]
ARGUMENTS = {"set": ["temperature", "top_p", "top_k"], "load": ["monday"], "export": None}


def completions(text: str) -> list[str]:
    completer = ChatCompleter(lambda: COMMANDS, lambda name: ARGUMENTS.get(name, []))
    return [c.text for c in completer.get_completions(Document(text), CompleteEvent())]


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("/", ["/help", "/set", "/load", "/export"]),
        ("/s", ["/set"]),
        ("/nothing", []),
        ("/set t", ["temperature", "top_p", "top_k"]),
        ("/set top", ["top_p", "top_k"]),
        ("/set temperature 0", []),
        ("/load ", ["monday"]),
        ("/help ", []),
        ("plain words", []),
        ("say /zzz-nothing", []),
    ],
)
def test_commands_and_their_arguments(text, offered):
    assert completions(text) == offered


def test_paths_are_completed_where_one_begins(tmp_path, monkeypatch):
    (tmp_path / "board.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    assert completions(f"what is in {tmp_path}/boa") == ["rd.txt"]
    assert completions("what is in ./boa") == ["rd.txt"]
    assert completions("/export boa") == ["rd.txt"]
    assert completions("what is boa") == []


def test_paths_with_spaces_are_completed_after_a_command(tmp_path, monkeypatch):
    (tmp_path / "my pics").mkdir()
    (tmp_path / "my pics" / "board one.png").write_text("")
    monkeypatch.chdir(tmp_path)
    assert completions("/export my pics/board o") == ["ne.png"]
    assert completions(f"/export {tmp_path}/my pi") == ["cs"]
    assert completions("/load my pics/b") == []
    assert completions("/tmp/x y") == []  # a message, not a command


@pytest.mark.parametrize(
    ("typed", "is_open", "text"),
    [
        ("hello", False, "hello"),
        ('"""', True, '"""'),
        ('"""a\nb', True, '"""a\nb'),
        ('"""a\nb"""', False, "a\nb"),
        ('"""\na\nb\n"""', False, "a\nb"),
        ('""""""', False, ""),
        ('say """x"""', False, 'say """x"""'),
        ('""', False, '""'),
    ],
)
def test_triple_quotes(typed, is_open, text):
    assert open_block(typed) is is_open
    assert unquoted(typed) == text


def test_history_outlives_the_run_and_is_private(tmp_path):
    path = tmp_path / "deep" / "history.jsonl"
    first = PromptHistory(path)
    for entry in ("one", "two\nlines", "žluť"):
        first.store_string(entry)
    assert list(PromptHistory(path).load_history_strings()) == ["žluť", "two\nlines", "one"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.problem == ""


def test_a_damaged_history_costs_only_its_damaged_lines(tmp_path):
    path = tmp_path / "h"
    lines = [b'"good"', b"\xff\xfe", b"[1]", b"{", b"[" * 100_000, b'"also good"', b'"cut o']
    path.write_bytes(b"\n".join(lines))
    assert list(PromptHistory(path).load_history_strings()) == ["also good", "good"]


def test_a_long_history_is_bounded(tmp_path, monkeypatch):
    path = tmp_path / "h"
    path.write_text("".join(f"{json.dumps(f'entry {i}')}\n" for i in range(5000)))
    entries = list(PromptHistory(path).load_history_strings())
    assert (len(entries), entries[0]) == (1000, "entry 4999")
    monkeypatch.setattr(line_editor, "_READ_BYTES", 100)
    assert len(list(PromptHistory(path).load_history_strings())) < 10


def test_a_history_that_cannot_be_written_says_why():
    broken = PromptHistory(line_editor.Path("/dev/full"))
    broken.store_string("a")
    assert "No space left on device" in broken.problem
    missing = PromptHistory(line_editor.Path("/proc/nope/h"))
    assert list(missing.load_history_strings()) == []
