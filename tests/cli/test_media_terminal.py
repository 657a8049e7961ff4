"""Pictures in a chat on a terminal: dropped, typed, named by command, kept by sessions."""

import json

import pytest

from tests.cli.fake_engine import MP4, png
from tests.cli.terminal import Terminal

CTRL_C = "\x03"
PASTE = "\x1b[200~{}\x1b[201~"


@pytest.fixture
def open_chat(tmp_path):
    """Start chats beside a few files; all are ended with the test."""
    (tmp_path / "my pics").mkdir()
    (tmp_path / "my pics" / "board.png").write_bytes(png(1024, 768))
    (tmp_path / "clip.mp4").write_bytes(MP4)
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    running = []

    def start(*args: str, **options) -> Terminal:
        running.append(Terminal(tmp_path, *args, size=(24, 160), **options))
        running[-1].wait("Enter sends")
        return running[-1]

    yield start
    for terminal in running:
        terminal.close()


def messages(tmp_path) -> list[dict]:
    files = sorted((tmp_path / "state/kimi-local/sessions").glob("*.json"))
    return json.loads(files[-1].read_text())["messages"]


LINE = "  ▸ image board.png 1024×768 → 1,036 tokens"


def test_a_path_in_a_sentence(open_chat, tmp_path):
    chat = open_chat("--instant", "--context", "2000")
    chat.enter("what is in ~/my pics/board.png ?")
    shown = chat.wait("You said what is in board.png ?.") and chat.prompt()
    assert LINE in shown.split("\n")
    assert "opening" not in shown
    assert "context 52%" in shown  # 1,036 and a few of 2,000
    (attachment,) = messages(tmp_path)[0]["attachments"]
    assert attachment["path"] == str(tmp_path / "my pics" / "board.png")


def test_a_dropped_file_waits_for_words(open_chat, tmp_path):
    chat = open_chat("--instant")
    chat.send(PASTE.format(f"'{tmp_path}/my pics/board.png' "))
    chat.wait("board.png'")
    chat.send("\r")
    chat.wait(LINE)
    chat.wait("· with board.png")
    chat.send("and this?\r")
    shown = chat.wait("You said and this?.") and chat.prompt()
    assert shown.count(LINE) == 1
    assert len(messages(tmp_path)[0]["attachments"]) == 1


def test_the_command_its_completion_and_its_plain_line(open_chat, tmp_path):
    chat = open_chat("--instant", "--plain")
    chat.send("/image my pics/bo")
    chat.wait("board.png")
    chat.send("\t")
    chat.wait("/image my pics/board.png")
    chat.send("\r")
    chat.wait("board.png 1024x768 -> 1,036 tokens")
    chat.send("/video ~/clip.mp4\r")
    chat.wait("clip.mp4 640x360, 4.0 s -> 598 tokens")
    chat.wait("· with 2 files")
    chat.send("/detach clip.mp4\r")
    chat.wait("no longer attached: clip.mp4")
    chat.send("look\r")
    chat.wait("You said look.")
    chat.prompt()
    assert [a["kind"] for a in messages(tmp_path)[0]["attachments"]] == ["image"]


def test_a_broken_file_keeps_the_draft_and_quotes_send_it_as_text(open_chat, tmp_path):
    chat = open_chat("--instant")
    chat.enter("what is ~/broken.png ?")
    chat.wait("broken.png is not a picture that can be read")
    chat.wait_until(lambda text: text.count("you ▸ what is ~/broken.png ?") == 2, "the draft")
    chat.send(CTRL_C)
    chat.send('"""what is ~/broken.png ?"""\r')
    chat.wait("You said what is ~/broken.png ?.")
    chat.prompt()
    assert "attachments" not in messages(tmp_path)[0]


def test_the_screen_says_what_is_looked_at_and_a_stop_keeps_it_attached(open_chat, tmp_path):
    chat = open_chat("--instant")
    chat.enter("slow look at ~/clip.mp4")
    shown = chat.wait("patches/s")
    assert "looking at clip.mp4" in shown
    chat.send(CTRL_C)
    chat.wait("stopped before an answer")
    chat.wait("you ▸ slow look at clip.mp4")
    assert "looking at" not in chat.wait("· with clip.mp4")


def test_a_session_goes_on_with_its_pictures_or_without_them(open_chat, tmp_path):
    board = tmp_path / "my pics" / "board.png"
    chat = open_chat("--instant", "--context", "2000", "-i", str(board))
    assert LINE in chat.text()
    chat.enter("look")
    chat.wait("You said look.")
    chat.prompt()
    chat.close()
    again = open_chat("-c", "--context", "2000")
    assert "you ▸ (board.png) look" in again.text()
    board.rename(tmp_path / "moved.png")
    again.enter("what was it?")
    again.wait("board.png: No such file or directory; put it back, or in a chat go on without it")
    again.wait_until(lambda text: text.count("you ▸ what was it?") == 2, "the draft")
    (tmp_path / "moved.png").rename(board)
    again.send("\r")
    again.wait("You said what was it?.")
    again.wait("context 52%")
    again.prompt()
    again.send("/detach board.png\r")
    again.wait("board.png is no longer part of this conversation")
    again.prompt()
    assert all("attachments" not in message for message in messages(tmp_path))


def test_a_name_cannot_drive_the_terminal(open_chat, tmp_path):
    (tmp_path / "x\x1b]0;owned\x07y\x9b2Jz.png").write_bytes(png(28, 28))
    chat = open_chat("--instant")
    chat.raw = b""
    chat.send("/image x")
    chat.wait("^[]0;owned")  # the completion, spelt out
    chat.send("\t")
    chat.wait("/image x^[]0;owned")
    chat.send("\r")
    chat.wait("▸ image xyz.png 28×28 → 1 token")
    chat.send("look\r")
    chat.wait("You said look.")
    chat.send("/image\r")
    chat.wait("nothing is attached")
    assert chat.screen.title != "owned"
    assert b"\x1b]0;" not in chat.raw
