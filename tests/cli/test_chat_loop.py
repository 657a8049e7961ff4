"""The loop of a chat: Ctrl-C outside an answer and outside the prompt breaks nothing."""

import os
import signal
from contextlib import contextmanager

import pytest

from cli import chat_commands, chat_loop, settings
from cli.chat_state import Chat
from cli.conversation import Conversation
from cli.plain_view import PlainView
from cli.sessions import new_session
from tests.cli.fake_engine import FakeEngine


class Editor:
    """Gets Ctrl-C before its prompt is drawn; then what was typed."""

    def __init__(self, *texts: str):
        self.texts = list(texts)
        self.stops = 0

    def ask(self, _draft: str = "") -> str:
        press()
        if not self.texts:
            raise EOFError
        return self.texts.pop(0)

    def stopped(self) -> None:
        self.stops += 1


class Pressed(FakeEngine):
    """An engine during whose answers Ctrl-C is pressed."""

    def generate(self, *args, **options):
        press()
        yield from super().generate(*args, **options)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def talk(home, monkeypatch):
    def run(engine: FakeEngine, *texts: str) -> Editor:
        here, editor = settings.read(), Editor(*texts)
        monkeypatch.setattr(chat_loop, "_editor", lambda *_: editor)
        view = PlainView(colour=False, chat=True)
        chat = Chat(engine, view, Conversation(), new_session(here.sessions_dir), here)
        assert chat_loop.run(chat) == 0
        return editor

    return run


def test_a_press_before_the_prompt_is_drawn_does_nothing(talk):
    engine = FakeEngine()
    talk(engine, "one", "two")
    assert len(engine.calls) == 2


def test_the_check_sees_a_loop_that_lets_presses_through(talk, monkeypatch):
    @contextmanager
    def planted():
        yield

    monkeypatch.setattr(chat_loop, "ignored", planted)
    engine = FakeEngine()
    talk(engine, "one", "two")  # two presses at the prompt: it leaves
    assert engine.calls == []


def test_the_editor_hears_of_stopped_answers_only(talk):
    assert talk(FakeEngine(), "one", "two").stops == 0
    assert talk(Pressed(), "one", "two").stops == 2


def test_a_command_can_be_broken_off(talk, monkeypatch):
    reached = []

    def endless(_chat, _text):
        press()
        reached.append("what follows")

    monkeypatch.setattr(chat_commands, "run", endless)
    engine = FakeEngine()
    talk(engine, "/help", "one")
    assert (reached, len(engine.calls)) == ([], 1)
