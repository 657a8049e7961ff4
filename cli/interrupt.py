"""Signals, by what the program is doing: the first press asks, the second insists.

loading         Loading    SIGINT, SIGTERM, SIGHUP wait for the next report of progress
an answer       Interrupt  Ctrl-C is what `should_stop` answers
after it        ignored    a late press must not break what is left to do
a chat command  raising    Ctrl-C breaks it off
the prompt      (prompt_toolkit) clears the line or leaves, but see Row
"""

import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from types import FrameType
from typing import Any

from hybrid.progress import Progress, ProgressSink

ROW_PAUSE_S = 0.5  # a finger that wants something else than before pauses this long
_Handler = Callable[[int, FrameType | None], Any]


class Loading:
    """Context manager: what a signal's handler raises comes where it cannot get lost.

    llvmlite compiles through ctypes callbacks, which print and drop an exception: a handler that
    raises there leaves three lines of noise and a run that goes on.
    """

    __slots__ = ("_handlers", "_report", "_signum")

    def __init__(self) -> None:
        self._signum: int | None = None
        self._handlers: dict[int, _Handler] = {}

    def check(self) -> None:
        """Raise what the handler of a signal that has come would have raised."""
        if self._signum is not None:
            self._handlers[self._signum](self._signum, None)

    def sink(self, show: ProgressSink) -> ProgressSink:
        """`show`, with a check at every call."""

        def checked(progress: Progress) -> None:
            self.check()
            show(progress)

        return checked

    def __enter__(self) -> "Loading":
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(signum)
            if callable(handler):  # what is ignored stays so
                self._handlers[signum] = handler
                signal.signal(signum, self._come)
        self._report = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        sys.unraisablehook = self._report

    def _come(self, signum: int, _frame: FrameType | None) -> None:
        insists, self._signum = self._signum is not None, signum
        if insists:
            self.check()

    def _unraisable(self, lost: Any) -> None:
        """Keep quiet about a second press that got lost all the same: the next check raises it."""
        if not isinstance(lost.exc_value, KeyboardInterrupt | SystemExit):
            self._report(lost)


class Interrupt:
    """Context manager; `requested` is what the engine polls through `should_stop`."""

    __slots__ = ("_over", "_previous", "requested")

    def __init__(self) -> None:
        self.requested = False
        self._over = False

    def over(self) -> None:
        """The answer has ended: what is left to do must not be broken by a late press."""
        self._over = True

    def __enter__(self) -> "Interrupt":
        self._previous = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _press(self, _signum: int, _frame: FrameType | None) -> None:
        if self.requested and not self._over:
            raise KeyboardInterrupt
        self.requested = True


class Row:
    """Presses in quick succession are one wish: those that follow a stop belong to it."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = 0.0

    def begin(self) -> None:
        """What is pressed now and soon was meant for something that is over."""
        self._until = perf_counter() + ROW_PAUSE_S

    def goes_on(self) -> bool:
        """Whether a press at this moment is one of them; if so, it prolongs the row."""
        if perf_counter() >= self._until:
            return False
        self.begin()
        return True


@contextmanager
def ignored() -> Iterator[None]:
    """Ctrl-C does nothing here. Programs started here still get the default handling."""
    with _handling(lambda *_: None):
        yield


@contextmanager
def raising() -> Iterator[None]:
    """Ctrl-C breaks off what is done here, and that is all it does."""
    with suppress(KeyboardInterrupt), _handling(signal.default_int_handler):
        yield


@contextmanager
def _handling(handler: _Handler) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def silent_keyboard() -> Iterator[None]:
    """What is typed during an answer waits for the prompt instead of landing in the text."""
    try:
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, ValueError, TypeError):  # stdin is no terminal, or closed
        yield
        return
    silent = list(before)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
