"""Signals while a model loads: none is lost, whatever compiled code does with exceptions."""

import ctypes
import os
import signal
import sys
from contextlib import contextmanager

import pytest

import hybrid
from cli import main
from cli.interrupt import Loading
from hybrid.progress import Progress
from tests.cli.fake_engine import FakeEngine

HALF = Progress("kernels", 1, 2, "kernels")


@pytest.fixture
def unraisable(monkeypatch):
    """What would have been printed as "Exception ignored ..."."""
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: lost.append(args.exc_type))
    return lost


@pytest.fixture
def terminated():
    """SIGTERM ends the program as `main` arranges it."""
    before = signal.signal(signal.SIGTERM, main._terminate)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def pressed(monkeypatch, terminated):
    """Make hybrid.load get signals inside a callback, as llvmlite's from LLVM; returns engines."""
    made = []

    def install(*signals: int, report: bool = True) -> list[FakeEngine]:
        def load(*_, progress, **__):
            ctypes.CFUNCTYPE(None)(lambda: send(*signals))()
            if report:
                progress(HALF)
            made.append(FakeEngine())
            return made[-1]

        monkeypatch.setattr(hybrid, "load", load, raising=False)
        return made

    return install


def send(*signals: int) -> None:
    for signum in signals:
        os.kill(os.getpid(), signum)


def test_ctrl_c_in_a_callback_ends_the_loading(chat, pressed, unraisable):
    made = pressed(signal.SIGINT)
    result = chat("-p", "hello")
    assert (result.code, result.out, result.err) == (130, "", "")
    assert (made, unraisable) == ([], [])


def test_sigterm_in_a_callback_ends_the_loading(chat, pressed, unraisable):
    made = pressed(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        chat("-p", "hello")
    assert end.value.code == 143
    assert (made, unraisable) == ([], [])


def test_what_comes_after_the_last_report_closes_the_engine(chat, pressed, unraisable):
    made = pressed(signal.SIGINT, report=False)
    result = chat("-p", "hello")
    assert (result.code, result.out, result.err) == (130, "", "")
    assert [engine.closed for engine in made] == [True]


def test_a_second_press_that_gets_lost_is_quiet_and_the_next_report_raises(
    chat, pressed, unraisable
):
    made = pressed(signal.SIGINT, signal.SIGINT)
    assert chat("-p", "hello").code == 130
    assert (made, unraisable) == ([], [])


@contextmanager
def no_deferral():
    """Planted: signals raise wherever they come."""

    class Never:
        def check(self):
            pass

        def sink(self, show):
            return show

    yield Never()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_checks_see_handlers_that_raise_in_the_callback(
    chat, pressed, unraisable, monkeypatch, signum
):
    monkeypatch.setattr("cli.engine_loading.Loading", no_deferral)
    made = pressed(signum)
    assert chat("-p", "hello").code == 0  # the run goes on
    assert len(made) == 1
    assert unraisable == [KeyboardInterrupt if signum == signal.SIGINT else SystemExit]


def test_a_second_press_insists_at_once():
    with Loading(), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT, signal.SIGINT)


def test_the_second_signal_decides_the_exit_code(terminated):
    with Loading(), pytest.raises(SystemExit) as end:
        send(signal.SIGINT, signal.SIGTERM)
    assert end.value.code == 143


def test_handlers_and_hook_are_put_back():
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    hook = sys.unraisablehook
    with Loading():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before
    assert sys.unraisablehook is hook


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Loading() as loading:
            send(signal.SIGINT, signal.SIGINT)
            loading.check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_lost_exceptions_are_reported(unraisable):
    with Loading():
        ctypes.CFUNCTYPE(None)(lambda: 1 / 0)()
    assert unraisable == [ZeroDivisionError]
