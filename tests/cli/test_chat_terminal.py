"""Real conversations in a pseudo-terminal, seen as a person sees them."""

import json
import re
import signal
import time

import pytest

from cli import interrupt
from tests.cli.terminal import Terminal

CTRL_C, CTRL_D, CTRL_J, ALT_ENTER = "\x03", "\x04", "\n", "\x1b\r"


@pytest.fixture
def open_chat(tmp_path):
    """Start chats; all are ended with the test."""
    running = []

    def start(*args: str, **options) -> Terminal:
        running.append(Terminal(tmp_path, *args, **options))
        running[-1].prompt()
        return running[-1]

    yield start
    for terminal in running:
        terminal.close()


def saved(tmp_path, name: str | None = None) -> dict:
    files = sorted((tmp_path / "state/kimi-local/sessions").glob(f"{name or '*'}.json"))
    return json.loads(files[-1].read_text())


def test_a_turn_from_question_to_stats(open_chat, tmp_path):
    chat = open_chat()
    chat.enter("hello")
    shown = chat.wait("You said hello.") and chat.prompt()
    lines = [line for line in shown.split("\n") if line]
    at = lines.index("you ▸ hello")
    assert lines[at + 1].startswith("▾ Thought for 0.")
    assert lines[at + 1].endswith("3 tokens (/thought shows it)")
    assert lines[at + 2] == "You said hello."
    assert "first token" in lines[at + 3]
    assert "7 tokens" in lines[at + 3]
    assert "Let me think" not in shown  # folded
    assert "context ▰" in lines[-1]
    chat.enter("/thought")
    chat.wait("Let me think.")
    assert saved(tmp_path)["messages"][-1]["content"] == "You said hello."


def test_thinking_is_seen_while_it_lasts_and_folds_after(open_chat):
    chat = open_chat(size=(18, 60))
    chat.enter("ponder")
    shown = chat.wait_until(lambda text: re.search(r"step[12]\d and", text), "thinking")
    assert re.search(r"Thinking · \d\.\d s · \d+ tokens", shown)
    live = shown[shown.index("Thinking ·") :].rstrip().split("\n")
    assert len(live) <= 18 // 3
    assert "step0" not in shown  # no longer in the live part, and not printed above it
    shown = chat.wait("You said ponder.") and chat.prompt()
    assert "step" not in shown
    assert "Thinking" not in shown
    assert re.search(r"▾ Thought for \d\.\d s · 30 tokens \(/thought shows it\)", shown)


def test_markdown_is_rendered_and_plain_is_not(open_chat):
    chat = open_chat()
    chat.enter("markdown")
    shown = chat.wait("The end.") and chat.prompt()
    answer = shown.split("shows it)")[1].split("The end.")[0].strip("\n")
    assert answer == "Title\n\nSome bold text.\n\n • one\n • two\n\n  x = 1\n  print(x)\n"[:-1]
    plain = open_chat("--plain")
    plain.enter("markdown")
    shown = plain.wait("The end.")
    assert "--- thinking\nLet me think.\n--- Thought for 0.0 s · 3 tokens\n# Title" in shown
    assert "Some **bold** text." in shown


def test_a_long_answer_is_whole_and_the_live_part_leaves_no_trace(open_chat):
    chat = open_chat(size=(12, 60))
    chat.enter("many")
    shown = chat.wait("word399") and chat.prompt()
    answer = shown.split("shows it)")[1].split("tok/s")[0].split()
    assert answer[:-1] == [f"word{i}" for i in range(400)]


@pytest.mark.parametrize("extra", [(), ("--plain",)])
def test_the_model_cannot_drive_the_terminal(open_chat, extra):
    chat = open_chat(*extra)
    chat.raw = b""
    chat.enter("hostile")
    chat.wait("safe red end link")
    assert b"owned" not in chat.raw
    assert b"\x1b]52" not in chat.raw
    assert b"\x1b]8" not in chat.raw
    assert chat.screen.title != "owned"


def test_ctrl_c_stops_the_answer_and_keeps_the_session(open_chat, tmp_path):
    chat = open_chat()
    chat.enter("slow")
    chat.wait("word3 ")
    chat.send(CTRL_C)
    chat.wait("stopped")
    chat.prompt()
    last = saved(tmp_path)["messages"][-1]
    assert last["partial"] is True
    assert last["content"].startswith("word0 word1 word2 word3 ")
    chat.enter("still there?")
    chat.wait("You said still there?.")


def test_a_second_ctrl_c_insists(open_chat, tmp_path):
    chat = open_chat()
    chat.enter("deaf slow")
    chat.wait("word3 ")
    chat.send(CTRL_C)
    chat.wait("stopping…")
    chat.send(CTRL_C)
    chat.wait("stopped")
    assert "stopping" not in chat.prompt()
    assert saved(tmp_path)["messages"][-1]["partial"] is True


def test_many_presses_of_ctrl_c_do_not_end_the_chat(open_chat, tmp_path):
    chat = open_chat("--instant")
    chat.enter("slow")
    chat.wait("word3 ")
    for _ in range(20):
        chat.process.kill(signal.SIGINT)
        chat._read()
        if "stopped" in chat.text():
            break
    chat.wait("stopped")
    chat.prompt()
    chat.enter("still there?")
    chat.wait("You said still there?.")


def test_a_row_of_presses_stops_the_answer_and_no_more(open_chat):
    chat = open_chat("--instant")
    chat.enter("slow")
    chat.wait("word3 ")
    chat.send(CTRL_C)
    chat.wait("stopped")
    chat.prompt()
    for _ in range(6):  # at the prompt by now
        chat.send(CTRL_C)
    chat.enter("still there?")
    shown = chat.wait("You said still there?.") and chat.prompt()
    assert "again to leave" not in shown
    time.sleep(interrupt.ROW_PAUSE_S)  # a pause ends the row: the keys mean what they say again
    chat.send(CTRL_C)
    chat.wait("press Ctrl-C again to leave")
    chat.prompt()
    chat.send(CTRL_C)
    assert chat.exit_code() == 0


def test_a_late_press_spares_the_message_that_came_back(open_chat):
    chat = open_chat("--instant")
    chat.enter("slow prefill")
    chat.wait("left")
    chat.send(CTRL_C)
    chat.wait_until(lambda text: text.count("you ▸ slow prefill") == 2, "the message again")
    chat.send(CTRL_C)
    chat.send(" please")
    chat.wait("you ▸ slow prefill please")


@pytest.mark.parametrize("extra", [(), ("--plain",)])
def test_a_terminal_that_is_closed_in_an_answer_saves_what_there_is(open_chat, tmp_path, extra):
    chat = open_chat("--instant", *extra)
    chat.enter("slow")
    chat.wait("word3 ")
    assert chat.hang_up() == 129
    last = saved(tmp_path)["messages"][-1]
    assert last["partial"] is True
    assert "word3" in last["content"]


def test_an_answer_that_was_cut_says_where_and_why(open_chat):
    chat = open_chat("--max-tokens", "3")
    chat.enter("hello")
    chat.wait("cut at max_tokens (3) while thinking; /set max_tokens changes it")
    chat.prompt()
    chat.enter("/set max_tokens 5")
    chat.prompt()
    chat.enter("hello")
    chat.wait("cut at max_tokens (5); /set max_tokens changes it")


def test_ctrl_c_before_an_answer_gives_the_message_back(open_chat):
    chat = open_chat("--instant")
    chat.enter("slow prefill")
    shown = chat.wait("left")
    assert "tok/s ·" in shown
    chat.send(CTRL_C)
    chat.wait("stopped before an answer")
    chat.wait_until(lambda text: text.count("you ▸ slow prefill") == 2, "the message again")


def test_ctrl_c_at_the_prompt_clears_then_asks_then_leaves(open_chat):
    chat = open_chat()
    chat.send("half a thought")
    chat.wait("half a thought")
    chat.send(CTRL_C)
    chat.wait_until(lambda text: "half a thought" not in text, "a cleared line")
    chat.send(CTRL_C)
    chat.wait("press Ctrl-C again to leave")
    chat.prompt()
    chat.send(CTRL_C)
    assert chat.exit_code() == 0


def test_ctrl_d_and_exit_leave(open_chat):
    for key in (CTRL_D, "/exit\r"):
        chat = open_chat()
        chat.send(key)
        assert chat.exit_code() == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_in_an_answer_saves_what_there_is(open_chat, tmp_path, signum, code):
    chat = open_chat()
    chat.enter("slow")
    chat.wait("word3 ")
    chat.process.kill(signum)
    assert chat.exit_code() == code
    last = saved(tmp_path)["messages"][-1]
    assert last["partial"] is True
    assert "word3" in last["content"]
    assert "Traceback" not in chat.text()


def test_a_signal_at_the_prompt_mends_the_terminal(open_chat):
    chat = open_chat()
    chat.process.kill(signal.SIGTERM)
    assert chat.exit_code() == 143
    assert "Traceback" not in chat.text()
    assert chat.raw.rstrip().endswith(b"\x1b[?2004l") or b"\x1b[?2004l" in chat.raw


def test_sessions_resume_by_c_and_by_name(open_chat):
    first = open_chat("--session", "work", "--instant")
    first.enter("remember 42")
    first.wait("You said remember 42.")
    first.prompt()
    first.send(CTRL_D)
    first.exit_code()
    for args in (("-c",), ("--session", "work")):
        again = open_chat(*args)
        shown = again.text()
        assert "session work · 2 messages" in shown
        assert "kimi ▸ You said remember 42." in shown
        assert "instant" in shown  # the mode is part of the session
        again.send("\x1b[A")
        again.wait("you ▸ remember 42")  # and what was typed is in the history


def test_a_hostile_session_cannot_drive_the_terminal(open_chat, tmp_path):
    sessions = tmp_path / "state/kimi-local/sessions"
    sessions.mkdir(parents=True)
    messages = [
        {"role": "user", "content": "\x1b]0;owned\x07hi"},
        {"role": "assistant", "content": "\x1b[2J\x9b2Jfine", "reasoning": "\x1b]0;owned\x07deep"},
    ]
    (sessions / "evil.json").write_text(json.dumps({"version": 1, "messages": messages}))
    chat = open_chat("--session", "evil")
    chat.enter("/thought")
    assert "kimi ▸ fine" in chat.wait("deep")
    assert b"owned" not in chat.raw
    assert chat.screen.title != "owned"


def test_many_lines_by_key_by_quotes_and_by_paste(open_chat):
    chat = open_chat("--plain", "--instant")
    for typed in (
        f"one{CTRL_J}two",
        f"one{ALT_ENTER}two",
        '"""one\rtwo"""',
        "\x1b[200~one\rtwo\x1b[201~",
    ):
        before = chat.text().count("You said one\ntwo.")
        chat.send(typed)
        chat.wait("two")
        chat.send("\r")
        chat.wait_until(
            lambda text, n=before: text.count("You said one\ntwo.") == n + 1,
            f"{typed!r} as two lines",
        )
        chat.prompt()


def test_retry_undo_and_edit(open_chat, tmp_path):
    chat = open_chat("--instant")
    chat.enter("first")
    chat.wait("You said first.")
    chat.prompt()
    chat.enter("/retry")
    chat.wait_until(lambda text: text.count("You said first.") == 2, "a second answer")
    chat.prompt()
    chat.enter("/edit")
    chat.wait_until(lambda text: text.rstrip().count("you ▸ first") == 2, "the message to edit")
    chat.send(" and more\r")
    chat.wait("You said first and more.")
    chat.prompt()
    assert [m["content"] for m in saved(tmp_path)["messages"]] == [
        "first and more",
        "You said first and more.",
    ]


def test_errors_are_a_line_and_the_chat_goes_on(open_chat):
    chat = open_chat("--instant")
    for text, hint in (
        ("too long", "the prompt is 2,000 tokens but the context holds 1,000"),
        ("/nonsense", "there is no command /nonsense"),
        ("boom", "worker 3 died"),
        ("/set temperature hot", "temperature: 'hot'"),
    ):
        chat.send(CTRL_C)  # what an error gave back to edit
        chat.send(f"{text}\r")
        chat.wait(hint)
    chat.send(CTRL_C)
    chat.send("alive\r")
    shown = chat.wait("You said alive.")
    assert "Traceback" not in shown
    assert "stopped" not in shown


def test_completion_of_commands(open_chat):
    chat = open_chat()
    chat.send("/se")
    chat.wait("list saved sessions")
    chat.send("ss")
    chat.wait_until(lambda text: "change sampling" not in text, "the one that fits")
    chat.send("\t")
    chat.wait("you ▸ /sessions")
    chat.send("\r")
    chat.wait("no sessions yet")


def test_tool_results_can_be_typed(open_chat, tmp_path):
    tools = tmp_path / "tools.json"
    tools.write_text('[{"type": "function", "function": {"name": "get_weather"}}]')
    chat = open_chat("--instant", "--tools", str(tools))
    chat.enter("weather?")
    chat.wait('→ get_weather {"city": "Paris"}')
    chat.wait("result (Enter skips) ▸")
    chat.send("sunny\r")
    chat.wait("You said sunny.")
    chat.prompt()
    roles = [m["role"] for m in saved(tmp_path)["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant"]


def test_a_full_disk_does_not_end_the_chat(open_chat, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state/kimi-local").write_text("a file where the directory should be")
    chat = open_chat("--instant")
    chat.enter("hello")
    chat.wait("input history not saved")
    chat.wait("not saved: ")
    chat.wait("the chat goes on")
    chat.prompt()
    chat.enter("again")
    chat.wait("You said again.")
    chat.prompt()
    chat.send(CTRL_D)
    assert chat.exit_code() == 1


def test_a_dumb_terminal_gets_text_only(tmp_path):
    chat = Terminal(tmp_path, env={"TERM": "dumb"})
    try:
        chat.wait("you ▸")
        chat.send("hello\r")
        chat.wait("You said hello.")
        chat.wait("first token")
        assert not re.search(rb"\x1b\[[0-9;]*[A-HJKfm]", chat.raw)  # moves, erases, colours
    finally:
        chat.close()


def test_the_external_editor(open_chat, tmp_path):
    editor = tmp_path / "editor.sh"
    editor.write_text("#!/bin/sh\nprintf 'from the editor' > \"$1\"\n")
    editor.chmod(0o755)
    chat = open_chat("--instant", env={"EDITOR": str(editor)})
    chat.send("\x07")
    chat.wait("you ▸ from the editor")
    chat.send("\r")
    chat.wait("You said from the editor.")


def test_no_colour_on_request(open_chat):
    colourless = open_chat(env={"NO_COLOR": "1"})
    colourless.enter("markdown")
    colourless.wait("The end.")
    assert b"\x1b[3" not in colourless.raw.replace(b"\x1b[39m", b"")


def test_typing_during_an_answer_waits_for_the_prompt(open_chat):
    chat = open_chat("--instant")
    chat.enter("brief slow")
    chat.wait("word3 ")
    chat.send("ahead")
    assert "ahead" not in chat.wait("word39")
    chat.wait("you ▸ ahead")
