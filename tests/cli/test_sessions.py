"""Session files: what goes in comes out, nothing is lost, nothing hostile gets in."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from cli import sessions
from cli.attachments import Attachment
from cli.conversation import Conversation, Message
from hybrid.errors import ConfigError, KimiLocalError, RequestError
from hybrid.events import ToolCall

CALL = ToolCall("functions.f:0", "f", '{"x": "中"}')
SHA = "0123456789abcdef" * 4
BOARD = Attachment("image", Path("/home/me/board \udcff.png"), 1234, SHA)
CLIP = Attachment("video", Path("/home/me/clip.mp4"), 5, SHA)


def full() -> Conversation:
    return Conversation(
        messages=[
            Message("user", "hi 中\x1b[31m", attachments=(BOARD, CLIP)),
            Message("assistant", "", reasoning="r", tool_calls=(CALL,), thought_s=1.5),
            Message("tool", "42", tool_call_id=CALL.id),
            Message("assistant", "fin", partial=True, reasoning_tokens=3),
        ],
        system="S",
        thinking=False,
        tools=[{"type": "function", "function": {"name": "f"}}],
        sampling={"temperature": 0.5, "stop": ("a", "b"), "seed": 2**60},
    )


def files(directory) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_a_conversation_comes_back_as_it_was(tmp_path):
    session = sessions.SessionFile(sessions.session_path(tmp_path / "s", "one"))
    assert sessions.save(session, full()) is False
    loaded, conversation = sessions.load(session.path)
    assert conversation == full()
    assert loaded == session


def test_no_pixels_are_kept(tmp_path):
    class Pixels:
        """Media that must not even be copied."""

        def __deepcopy__(self, memo):
            raise AssertionError("copied")

    opened = replace(BOARD, media=Pixels())
    session = sessions.SessionFile(sessions.session_path(tmp_path, "one"))
    sessions.save(session, Conversation(messages=[Message("user", "x", attachments=(opened,))]))
    kept = json.loads(session.path.read_text())["messages"][0]["attachments"]
    assert kept == [
        {"kind": "image", "path": "/home/me/board \udcff.png", "size": 1234, "sha256": SHA}
    ]
    assert sessions.load(session.path)[1].messages[0].attachments[0].media is None


def test_files_are_private_and_leave_no_litter(tmp_path):
    session = sessions.SessionFile(sessions.session_path(tmp_path / "s", "one"))
    sessions.save(session, full())
    assert stat.S_IMODE(session.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(session.path.parent.stat().st_mode) == 0o700
    assert files(session.path.parent) == ["one.json"]


def full_disk(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "fdopen"])
def test_a_full_disk_leaves_the_old_state(tmp_path, monkeypatch, step):
    session = sessions.SessionFile(sessions.session_path(tmp_path, "one"))
    sessions.save(session, full())
    before = session.path.read_bytes()
    monkeypatch.setattr(sessions.os, step, full_disk)
    with pytest.raises(KimiLocalError, match="one not saved: No space left on device"):
        sessions.save(session, Conversation(messages=[Message("user", "new")]))
    assert session.path.read_bytes() == before
    assert files(tmp_path) == ["one.json"]


def test_the_full_disk_check_sees_a_save_that_writes_in_place(tmp_path, monkeypatch):
    """Planted: without the temporary file the old state is gone when the disk is full."""

    def in_place(path, data):
        with path.open("wb") as file:
            file.write(data[:10])
            full_disk()

    session = sessions.SessionFile(sessions.session_path(tmp_path, "one"))
    sessions.save(session, full())
    before = session.path.read_bytes()
    monkeypatch.setattr(sessions, "_replace", in_place)
    with pytest.raises(KimiLocalError):
        sessions.save(session, full())
    assert session.path.read_bytes() != before


def test_two_chats_on_one_session_lose_nothing(tmp_path):
    path = sessions.session_path(tmp_path, "one")
    mine = sessions.SessionFile(path)
    sessions.save(mine, full())
    theirs, _ = sessions.load(path)
    changed = Conversation(messages=[Message("user", "theirs, longer than before " * 99)])
    assert sessions.save(theirs, changed) is False
    assert sessions.save(mine, full()) is True
    assert mine.name == "one-2"
    assert sessions.load(path)[1] == changed
    assert sessions.load(mine.path)[1] == full()


def good(**changes) -> dict:
    return {"version": 1, "messages": [{"role": "user", "content": "x"}]} | changes


def message(**changes) -> dict:
    return good(messages=[{"role": "assistant", "content": "x"} | changes])


def shows(**changes) -> dict:
    item = {"kind": "image", "path": "/a.png", "size": 1, "sha256": SHA} | changes
    return message(role="user", attachments=[item])


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        (b"", "not readable"),
        (b"{", "not readable"),
        (b"\xff\xfe\x00", "not readable"),
        (b"[" * 100_000, "not readable"),
        ([], "version is None"),
        ({}, "version is None"),
        (good(version=2), "version is 2, this program reads 1"),
        (good(version="1"), "version is '1'"),
        (good(messages=None), "messages is 'None'"),
        (good(messages={}), "messages is"),
        (good(messages=[1]), "message 0 has no known role"),
        (good(messages=[{"role": "system", "content": "x"}]), "no known role"),
        (good(messages=[{"role": [], "content": "x"}]), "no known role"),
        (message(content=None), "content is"),
        (message(content=["x"]), "content is"),
        (message(reasoning=1), "reasoning is"),
        (message(partial="yes"), "partial is"),
        (message(tool_calls=[1]), "a tool call is not an object"),
        (message(tool_calls=[{"id": "x"}]), "name is"),
        (message(attachments={}), "attachments is"),
        (message(attachments=[1]), "no known kind"),
        (shows(kind="audio"), "no known kind"),
        (shows(kind=[]), "no known kind"),
        (shows(path="a.png"), "no absolute path"),
        (shows(path=1), "path is"),
        (shows(path=None), "path is"),
        (shows(size="1"), "size is"),
        (shows(sha256=SHA[1:]), "or no sha256"),
        (shows(sha256=SHA.upper()), "or no sha256"),
        (good(system=1), "system is"),
        (good(thinking="no"), "thinking is"),
        (good(sampling=[]), "sampling is"),
        (good(sampling={"magic": 1}), "'magic' is unknown"),
        (good(sampling={"temperature": -1}), "temperature: -1"),
        (good(sampling={"temperature": float("nan")}), "finite"),
        (good(sampling={"temperature": "hot"}), "must be a number"),
        (good(sampling={"seed": True}), "must be a number"),
        (good(sampling={"stop": "x"}), "list of texts"),
        (good(tools=[1]), "tool 0 is not"),
    ],
)
def test_a_hostile_file_is_one_line_and_stays_as_it_is(tmp_path, document, hint):
    path = tmp_path / "bad.json"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="session bad") as caught:
        sessions.load(path)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_the_same_document_without_a_fault_loads(tmp_path):
    path = tmp_path / "good.json"
    path.write_text(json.dumps(good()))
    assert sessions.load(path)[1].messages == [Message("user", "x")]
    path.write_text(json.dumps(shows()))
    assert len(sessions.load(path)[1].messages[0].attachments) == 1


def test_pipes_and_huge_files_are_not_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ConfigError, match="not a regular file"):
        sessions.load(tmp_path / "pipe.json")
    monkeypatch.setattr(sessions, "MOST_BYTES", 3)
    (tmp_path / "big.json").write_text("1234")
    with pytest.raises(ConfigError, match="4 bytes; at most 3"):
        sessions.load(tmp_path / "big.json")
    with pytest.raises(ConfigError, match="No such file"):
        sessions.load(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\0b", "a\n", "x" * 65, "-x"])
def test_a_name_is_not_a_path(tmp_path, name):
    with pytest.raises(RequestError, match="letters, digits"):
        sessions.session_path(tmp_path, name)


def test_names_come_latest_first_and_new_ones_are_free(tmp_path):
    for age, name in enumerate(["new", "older", "oldest"]):
        path = tmp_path / f"{name}.json"
        path.write_text("{}")
        os.utime(path, (10**9 - age, 10**9 - age))
    (tmp_path / ".x.tmp").write_text("litter")
    assert sessions.names(tmp_path) == ["new", "older", "oldest"]
    first = sessions.new_session(tmp_path)
    first.path.write_text("{}")
    assert sessions.new_session(tmp_path).path != first.path
    assert sessions.names(tmp_path / "nowhere") == []
