"""Attaching files to the next message of a chat, by command and by path."""

import pytest

from cli import chat_commands, media_commands, settings
from cli.chat_state import Chat
from cli.conversation import Conversation, Message
from cli.sessions import load, new_session
from hybrid.errors import RequestError
from tests.cli.fake_engine import MP4, FakeEngine, png
from tests.cli.lines import Lines


@pytest.fixture
def chat(home, monkeypatch):
    here = settings.read()
    monkeypatch.chdir(home)
    (home / "my pics").mkdir()
    (home / "my pics" / "board one.png").write_bytes(png(1024, 768))
    (home / "dot.png").write_bytes(png(1, 1))
    (home / "clip.mp4").write_bytes(MP4)
    (home / "broken.png").write_bytes(b"not a picture")
    return Chat(FakeEngine(), Lines(), Conversation(), new_session(here.sessions_dir), here)


def run(chat: Chat, line: str) -> str:
    before = len(chat.view.said)
    chat_commands.run(chat, line)
    return "\n".join(chat.view.said[before:])


def attached(chat: Chat) -> list[str]:
    return [attachment.name for attachment in chat.attached]


BOARD = "board one.png 1024×768 → 1,036 tokens"
CLIP = "clip.mp4 640×360, 4.0 s → 598 tokens"  # two chunks of 23 x 13


def test_a_command_attaches_and_the_prompt_stays_open(chat):
    assert run(chat, "/image my pics/board one.png") == BOARD
    assert run(chat, "/video clip.mp4") == CLIP
    assert attached(chat) == ["board one.png", "clip.mp4"]
    assert (chat.pending, chat.draft) == (None, "")
    assert run(chat, "/image").split("\n") == [
        f"  image  {BOARD}",
        f"  video  {CLIP}",
        "  /detach drops them, /detach NAME one of them",
    ]
    media_commands.compose(chat, "what are these?")
    assert chat.pending.content == "what are these?"
    assert [a.name for a in chat.pending.attachments] == ["board one.png", "clip.mp4"]
    assert chat.attached == []
    assert "nothing is attached; /video PATH" in run(chat, "/video")


def test_a_line_that_is_only_a_path_attaches_and_waits_for_words(chat):
    media_commands.compose(chat, "'my pics/board one.png' ./dot.png")
    assert (attached(chat), chat.pending, chat.draft) == (["board one.png", "dot.png"], None, "")
    media_commands.compose(chat, "and ~/clip.mp4, which is better?")
    assert chat.pending.content == "and clip.mp4, which is better?"
    assert [a.kind for a in chat.pending.attachments] == ["image", "image", "video"]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("what is ~/broken.png and ~/dot.png ?", "broken.png is not a picture"),
        ("~/dot.png then ~/broken.png", "broken.png is not a picture"),
    ],
)
def test_a_broken_file_is_one_line_and_the_draft_is_kept(chat, line, hint):
    with pytest.raises(RequestError, match=hint) as caught:
        media_commands.compose(chat, line)
    assert 'a text between """ and """ is sent as it is' in str(caught.value)
    assert (chat.draft, chat.pending, chat.attached, chat.view.said) == (line, None, [], [])


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("/image missing.png", "missing.png: No such file"),
        ("/image broken.png", "not a picture"),
        ("/image clip.mp4", "not a picture"),
        ("/video dot.png", "not a video"),
        ("/image my pics", "not a regular file|Is a directory"),
    ],
)
def test_a_command_that_fails_comes_back_for_changing(chat, line, hint):
    with pytest.raises(RequestError, match=hint):
        run(chat, line)
    assert (chat.draft, chat.attached) == (line, [])


def test_a_file_is_attached_once(chat):
    run(chat, "/image dot.png")
    media_commands.compose(chat, "~/dot.png and ~/dot.png")
    assert [a.name for a in chat.pending.attachments] == ["dot.png"]


def test_detach(chat):
    with pytest.raises(RequestError, match="nothing is attached"):
        run(chat, "/detach")
    run(chat, "/image dot.png 'my pics/board one.png' dot.png")
    assert media_commands.names(chat) == ["dot.png", "board one.png"]
    assert run(chat, "/detach board one.png") == "no longer attached: board one.png"
    assert attached(chat) == ["dot.png"]
    with pytest.raises(RequestError, match=r"other\.png is not attached; /image lists"):
        run(chat, "/detach other.png")
    run(chat, "/detach")
    assert chat.attached == []


def say(chat: Chat, text: str) -> None:
    media_commands.compose(chat, text)
    chat.conversation.messages += [chat.pending, Message("assistant", "fine")]
    chat.pending = None


def test_detach_takes_a_file_out_of_the_conversation_for_good(chat):
    say(chat, "what is ~/dot.png ?")
    say(chat, "and now?")
    assert media_commands.names(chat) == ["dot.png"]
    assert "no longer part" in run(chat, "/detach dot.png")
    assert [m.attachments for m in chat.conversation.messages] == [()] * 4
    assert load(chat.session.path)[1] == chat.conversation


def test_retry_sends_the_same_pictures(chat):
    say(chat, "what is ~/dot.png ?")
    sent = chat.conversation.messages[0]
    run(chat, "/video clip.mp4")
    run(chat, "/retry")
    assert chat.pending == sent
    assert attached(chat) == ["clip.mp4"]  # for the message after it


@pytest.mark.parametrize(("command", "draft"), [("/edit", "what is dot.png ?"), ("/undo", "")])
def test_edit_and_undo_keep_them_attached_and_say_so(chat, command, draft):
    say(chat, "what is ~/dot.png ?")
    run(chat, "/video clip.mp4")
    assert "still attached: dot.png; /detach drops it" in run(chat, command)
    assert (chat.draft, attached(chat)) == (draft, ["dot.png", "clip.mp4"])
    assert chat.conversation.messages == []
    media_commands.compose(chat, "again")
    assert [a.name for a in chat.pending.attachments] == ["dot.png", "clip.mp4"]


def test_recall_and_export_name_what_was_shown(chat, home):
    (home / "x`\x1b]0;owned\x07.png").write_bytes(png(5, 5))
    say(chat, "what is ~/dot.png ?")
    say(chat, f"and {home}/x`\x1b]0;owned\x07.png ~/clip.mp4")
    run(chat, f"/export {home}/talk.md")
    text = (home / "talk.md").read_text()
    assert "## You\n\nimage: `dot.png`\n\nwhat is dot.png ?" in text
    assert "image: `x.png`\n\nvideo: `clip.mp4`\n\nand x`.png clip.mp4" in text
    assert "\x1b" not in text
    run(chat, "/save one")
    run(chat, "/clear")
    assert "you ▸ (x`.png, clip.mp4) and x`.png clip.mp4" in run(chat, "/load one")


def test_what_a_loaded_session_shows_can_be_listed_before_it_is_opened(chat):
    say(chat, "what is ~/dot.png ?")
    run(chat, "/save one")
    run(chat, "/clear")
    run(chat, "/load one")
    run(chat, "/undo")
    assert run(chat, "/image").startswith("  image  dot.png\n")


def test_a_file_in_the_root_directory_is_no_command():
    assert not chat_commands.is_command("/board.png what is it?")
    assert chat_commands.is_command("/image board.png")
