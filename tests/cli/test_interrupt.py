"""Ctrl-C during an answer: ask, insist, and never after the end."""

import os
import signal

import pytest

from cli import interrupt
from cli.interrupt import Interrupt, Row, ignored, raising, silent_keyboard


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


def test_ignored_and_raising_nest():
    reached = []
    with ignored():
        press()
        with raising():
            press()
            reached.append("after a press")
        press()
        reached.append("the end")
    assert reached == ["the end"]
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_row_of_presses_lasts_until_a_pause(monkeypatch):
    now = 100.0
    monkeypatch.setattr(interrupt, "perf_counter", lambda: now)
    row = Row()
    assert not row.goes_on()
    row.begin()
    for _ in range(6):  # each within half a second of the one before
        now += interrupt.ROW_PAUSE_S * 0.9
        assert row.goes_on()
    now += interrupt.ROW_PAUSE_S * 1.1
    assert not row.goes_on()
    assert not row.goes_on()


def test_a_stdin_that_is_no_terminal_is_left_alone(monkeypatch):
    for stdin in (None, open(os.devnull)):  # noqa: PTH123, SIM115
        monkeypatch.setattr("sys.stdin", stdin)
        with silent_keyboard():
            pass
        if stdin:
            stdin.close()
