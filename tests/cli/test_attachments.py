"""Files that a message shows: read safely, known by their bytes, opened again when needed."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli import attachments
from cli.attachments import attach, reopened, shown_name
from cli.conversation import Conversation, Message, engine_message
from hybrid.errors import RequestError
from tests.cli.fake_engine import MP4, FakeEngine, png


class Lines:
    """A view that remembers what was attached."""

    def __init__(self):
        self.media, self.waits, self.finished = [], [], 0

    def attached(self, media):
        self.media.append(media)

    def waiting(self, label):
        self.waits.append(label)

    def finish(self):
        self.finished += 1


@pytest.fixture
def board(tmp_path):
    path = tmp_path / "board.png"
    path.write_bytes(png(1024, 768))
    return path


def opened(path: Path, engine=None, kind="image", view=None):
    return attach(engine or FakeEngine(), view or Lines(), [(kind, path)])[0]


def test_a_file_is_known_by_path_and_bytes(board, monkeypatch):
    monkeypatch.chdir(board.parent)
    view = Lines()
    attachment = opened(Path("board.png"), view=view)
    data = board.read_bytes()
    assert attachment.path == board
    assert (attachment.size, attachment.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert attachment.media.tokens == 1036  # 37 x 28 of 28 x 28 pixels
    assert view.media == [attachment.media]
    assert (view.waits, view.finished) == (["opening board.png"], 1)


def test_all_or_none(board, tmp_path):
    view = Lines()
    with pytest.raises(RequestError, match=r"missing\.png: No such file"):
        attach(FakeEngine(), view, [("image", board), ("image", tmp_path / "missing.png")])
    assert (view.media, view.finished) == ([], 1)


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, hint in (
        (tmp_path / "pipe.png", "not a regular file"),
        (tmp_path, "not a regular file|Is a directory"),
        (Path("/dev/zero"), "not a regular file"),
        (Path("/a\0b.png"), "null byte"),
        (tmp_path / "no\n\x1b[2Jne.png", r"no ne\.png: No such file"),
    ):
        with pytest.raises(RequestError, match=hint) as caught:
            opened(path)
        assert str(caught.value).isprintable()


def test_a_huge_file_is_not_read_to_its_end(board, monkeypatch):
    monkeypatch.setattr(attachments, "MOST_BYTES", 10)
    with pytest.raises(RequestError, match="larger than"):
        opened(board)


def test_a_model_that_cannot_see_says_why(board):
    blind = FakeEngine(config=SimpleNamespace(vision=None))
    with pytest.raises(RequestError, match=r"board\.png: this model reads text only"):
        opened(board, blind)
    with pytest.raises(RequestError, match="without --no-vision"):
        opened(board, FakeEngine(vision=False))


def test_the_same_bytes_open_again(board):
    kept = replace(opened(board), media=None)
    engine = FakeEngine()
    again = reopened(engine, kept)
    assert again == kept
    assert again.media.tokens == 1036
    assert reopened(engine, again) is again
    assert engine.opened == ["board.png"]


def changed(path):
    path.write_bytes(png(1024, 768, b"another"))


def swapped(path):  # of the same size
    path.write_bytes(png(768, 1024))


def gone(path):
    path.unlink()


@pytest.mark.parametrize(
    ("change", "hint"),
    [(changed, "no longer what it was"), (swapped, "no longer what it was"), (gone, "No such")],
)
def test_a_file_that_is_not_what_it_was_is_one_line_that_helps(board, change, hint):
    kept = replace(opened(board), media=None)
    change(board)
    with pytest.raises(RequestError, match=hint) as caught:
        reopened(FakeEngine(), kept)
    assert str(caught.value).endswith(
        "; put it back, or in a chat go on without it: /detach board.png"
    )
    assert "\n" not in str(caught.value)


def test_the_check_sees_a_session_that_trusts_the_path(board, monkeypatch):
    """Planted: equal hashes for everything."""
    kept = replace(opened(board), media=None, sha256="0")
    swapped(board)
    monkeypatch.setattr(
        attachments.hashlib, "sha256", lambda _: SimpleNamespace(hexdigest=lambda: "0")
    )
    assert reopened(FakeEngine(), kept).media is not None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("board.png", "board.png"),
        ("\x1b]0;owned\x07a\nb.png", "a b.png"),
        ("\x9b2Ja.png", "a.png"),
        ("\x1b[31m", "?"),
        ("\udcff.png", "?.png"),
        ("x" * 100, "x" * 59 + "…"),
    ],
)
def test_names_are_safe_to_show(name, shown):
    assert shown_name(Path("/home/me") / name) == shown


def test_the_check_of_names_sees_one_shown_as_it_is(monkeypatch):
    """Planted: a cleaner that cleans nothing."""
    monkeypatch.setattr(attachments, "one_line", lambda text: text)
    assert not shown_name(Path("/home/me/\x1b]0;owned\x07a.png")).isprintable()


def test_what_the_engine_gets_is_pictures_and_then_the_text(board, tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(MP4)
    shown = (opened(board), opened(clip, kind="video"))
    message = engine_message(Message("user", "what is it?", attachments=shown))
    assert [part["type"] for part in message["content"]] == ["image", "video", "text"]
    assert message["content"][0]["image"] is shown[0].media
    assert message["content"][1]["video"] is shown[1].media
    assert message["content"][2]["text"] == "what is it?"
    assert engine_message(Message("user", "no picture"))["content"] == "no picture"


def test_a_loaded_conversation_opens_what_it_shows(board):
    kept = replace(opened(board), media=None)
    conversation = Conversation(
        messages=[Message("user", "a", attachments=(kept,)), Message("assistant", "b")]
    )
    assert not conversation.opened
    engine = FakeEngine()
    conversation.open_attachments(engine)
    conversation.open_attachments(engine)
    assert conversation.opened
    assert engine.opened == ["board.png"]
    assert conversation.detach("other.png") is False
    assert conversation.detach("board.png") is True
    assert conversation.messages[0] == Message("user", "a")
