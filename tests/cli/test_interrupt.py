"""Ctrl-C during an answer: ask, insist, and never after the end."""

import os
import signal

import pytest

from cli.interrupt import Interrupt, silent_keyboard


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_press_asks_and_the_second_insists():
    with Interrupt() as interrupt:
        press()
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            press()


def test_a_late_press_breaks_nothing():
    with Interrupt() as interrupt:
        press()
        interrupt.over()
        press()
        press()


def test_the_handler_before_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    with Interrupt():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_stdin_that_is_no_terminal_is_left_alone(monkeypatch):
    for stdin in (None, open(os.devnull)):  # noqa: PTH123, SIM115
        monkeypatch.setattr("sys.stdin", stdin)
        with silent_keyboard():
            pass
        if stdin:
            stdin.close()
