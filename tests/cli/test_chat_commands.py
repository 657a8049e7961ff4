"""The slash commands, on a chat without a terminal."""

import base64

import pytest

from cli import chat_commands, settings
from cli.chat_state import Chat, autosave
from cli.conversation import Conversation, Message
from cli.sessions import new_session
from cli.turn import Recording
from hybrid.errors import ConfigError, KimiLocalError, RequestError
from hybrid.events import Event, Usage
from tests.cli.fake_engine import FakeEngine
from tests.cli.lines import Lines


@pytest.fixture
def chat(home):
    here = settings.read()
    history = [
        Message("user", "first"),
        Message("assistant", "answer one", reasoning="thinking one"),
        Message("user", "second"),
        Message("assistant", "answer two", reasoning="because", thought_s=3, reasoning_tokens=9),
    ]
    conversation = Conversation(messages=history)
    return Chat(FakeEngine(), Lines(), conversation, new_session(here.sessions_dir), here)


def run(chat: Chat, line: str) -> str:
    """What the command says."""
    before = len(chat.view.said)
    chat_commands.run(chat, line)
    return "\n".join(chat.view.said[before:])


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("/help", True),
        ("/set a b", True),
        ("/", True),
        ("/nonsense", True),
        ("/home/me/x.png what is it", False),
        ("hello /help", False),
        ("", False),
    ],
)
def test_what_counts_as_a_command(text, is_one):
    assert chat_commands.is_command(text) is is_one


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("/tought", "/thought"), ("/hlep", "/help"), ("/he", "/help"), ("/stat", "/stats")],
)
def test_did_you_mean(chat, typed, meant):
    with pytest.raises(RequestError, match=f"did you mean {meant}"):
        run(chat, typed)
    with pytest.raises(RequestError, match="/help lists"):
        run(chat, "/zzz")


def test_help_names_every_command(chat):
    shown = run(chat, "/help")
    assert all(f"/{name}" in shown for name in chat_commands.COMMANDS)


@pytest.mark.parametrize("name", chat_commands.COMMANDS)
def test_every_command_runs_or_says_what_it_wants(chat, name, capsys):
    needs = {
        "load": "needs a name",
        "export": "needs a file name",
        "detach": "nothing is attached",
    }
    if name in needs:
        with pytest.raises(RequestError, match=needs[name]):
            run(chat, f"/{name}")
    else:
        run(chat, f"/{name}")


def test_think(chat):
    assert "instant" in run(chat, "/think off")
    assert not chat.conversation.thinking
    run(chat, "/think on")
    assert chat.conversation.thinking
    with pytest.raises(RequestError, match="on or off"):
        run(chat, "/think maybe")


def test_system(chat):
    run(chat, "/system be brief")
    assert chat.conversation.for_engine()[0] == {"role": "system", "content": "be brief"}
    run(chat, "/system none")
    assert chat.conversation.for_engine()[0]["role"] == "user"


def test_set(chat):
    assert "0.7" in run(chat, "/set temperature 0.7")
    assert max(map(len, run(chat, "/set").split("\n"))) <= 80
    run(chat, '/set stop "the end" stop')
    run(chat, "/set top-k 5")
    assert chat.conversation.sampling == {
        "temperature": 0.7,
        "stop": ("the end", "stop"),
        "top_k": 5,
    }
    table = run(chat, "/set")
    assert all(name in table for name in ("temperature", "repetition_penalty", "0.7", "0.6"))
    assert "1.0" in run(chat, "/set temperature default")
    chat.conversation.thinking = False
    assert "0.6" in run(chat, "/set temperature")
    with pytest.raises(RequestError, match="did you mean temperature"):
        run(chat, "/set temprature 1")
    with pytest.raises(RequestError, match="temperature: 'hot'"):
        run(chat, "/set temperature hot")


def test_retry_undo_edit(chat):
    run(chat, "/retry")
    assert chat.pending == Message("user", "second")
    assert [m.content for m in chat.conversation.messages] == ["first", "answer one"]
    run(chat, "/edit")
    assert chat.draft == "first"
    for command in ("/retry", "/undo", "/edit"):
        with pytest.raises(RequestError, match="nothing has been said"):
            run(chat, command)


def test_undo_takes_a_whole_tool_round_back(chat):
    chat.conversation.messages += [Message("tool", "42"), Message("assistant", "three")]
    assert "second" in run(chat, "/undo")
    assert [m.content for m in chat.conversation.messages] == ["first", "answer one"]


def test_a_fixed_seed_is_mentioned_on_retry(chat):
    run(chat, "/set seed 1")
    assert "seed" in run(chat, "/retry")


def test_save_load_sessions_clear(chat):
    run(chat, "/save one")
    assert "one  (this one)" in run(chat, "/sessions")
    assert "stays as one" in run(chat, "/clear")
    assert chat.conversation.messages == []
    chat.conversation.messages.append(Message("user", "other"))
    with pytest.raises(RequestError, match="there is a session one"):
        run(chat, "/save one")
    with pytest.raises(RequestError, match="did you mean one"):
        run(chat, "/load onne")
    assert "4 messages" in run(chat, "/load one")
    assert chat.session.name == "one"
    assert chat.conversation.messages[-1].content == "answer two"


def test_loading_a_damaged_session_keeps_the_present_one(chat):
    path = chat.settings.sessions_dir / "bad.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ConfigError, match="session bad is not readable"):
        run(chat, "/load bad")
    assert len(chat.conversation.messages) == 4
    assert path.read_text() == "{"


def test_a_failed_autosave_is_said_and_the_chat_goes_on(chat, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cli.sessions._replace", full)
    autosave(chat)
    assert chat.unsaved
    assert "No space left" in chat.view.said[-1]
    for command in ("/clear", "/load other"):
        (chat.settings.sessions_dir / "other.json").parent.mkdir(parents=True, exist_ok=True)
        (chat.settings.sessions_dir / "other.json").write_text('{"version": 1, "messages": []}')
        with pytest.raises(KimiLocalError, match="not saved yet"):
            run(chat, command)
        assert len(chat.conversation.messages) == 4
    monkeypatch.undo()
    autosave(chat)
    assert not chat.unsaved


def test_an_export_to_a_home_that_nobody_has_is_refused(chat):
    with pytest.raises(ConfigError, match="no such home directory"):
        run(chat, "/export ~nobody-of-this-name/x.md")


def test_an_untouched_chat_leaves_no_file(chat):
    chat.conversation.clear()
    autosave(chat)
    assert not chat.settings.sessions_dir.exists()


def test_thought(chat):
    assert run(chat, "/thought") == "Thought for 3.0 s · 9 tokens\nbecause"
    chat.conversation.messages.append(Message("assistant", "x"))
    with pytest.raises(RequestError, match="no thinking"):
        run(chat, "/thought")


def test_context_and_stats(chat):
    assert "room for 1,000" in run(chat, "/context")
    chat.conversation.context_tokens = 250
    assert "25% · 250 of 1,000 tokens" in run(chat, "/context")
    recording = Recording(started=0.0)
    recording.add(Event("content", "x", (1,)))
    recording.add(Event("finish", finish_reason="stop", usage=Usage(100, 40, 1)))
    chat.last = recording
    chat.totals.add(recording)
    shown = run(chat, "/stats")
    assert "100 (40 from the KV cache)" in shown
    assert "engine seconds  prefill 0.5" in shown


def test_copy_is_osc_52_and_carries_the_text_encoded(chat, capsys):
    run(chat, "/copy")
    sent = capsys.readouterr().out
    assert sent.startswith("\x1b]52;c;")
    assert base64.b64decode(sent[7:-1]) == b"answer two"


def test_export_writes_markdown_and_never_over_a_file(chat, tmp_path):
    path = tmp_path / "talk.md"
    chat.conversation.system = "S"
    run(chat, f"/export {path}")
    text = path.read_text()
    assert text.startswith("## System\n\nS\n\n## You\n\nfirst\n\n## Kimi\n\nanswer one")
    with pytest.raises(KimiLocalError, match="File exists"):
        run(chat, f"/export {path}")
    assert path.read_text() == text


def test_exit(chat):
    run(chat, "/quit")
    assert chat.leaving
