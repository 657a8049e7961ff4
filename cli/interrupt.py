"""Ctrl-C while the model works: the first press asks it to stop, the second insists.

Set per turn, because prompt_toolkit takes the handler away at every prompt.
"""

import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


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
