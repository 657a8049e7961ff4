"""Answers as plain text, for pipes, files, dumb terminals and `--plain`: no cursor movement.

stdout gets the answer and nothing else; stderr gets the rest, and progress only on a terminal
(a line now and then) because logs do not want animation.
"""

import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any, TextIO

import click

from cli.figures import Meter, media_line, thought
from cli.terminal_text import Cleaner, clean
from hybrid.events import Event
from hybrid.progress import Progress

if TYPE_CHECKING:
    from hybrid.vision.media import Media

_TONES: dict[str, dict[str, Any]] = {
    "dim": {"dim": True},
    "warn": {"fg": "yellow"},
    "error": {"fg": "red"},
    "plain": {},
}
_PROGRESS_EVERY_S = 5.0


class PlainView:
    """Streams text as it comes.

    `answer`: content is wanted (not with --json); `thoughts`: reasoning too, though nobody watches.
    """

    def __init__(
        self, *, colour: bool, answer: bool = True, chat: bool = False, thoughts: bool = False
    ) -> None:
        self._colour = None if colour else False
        self._answer = answer
        self._aside: TextIO = sys.stdout if chat else sys.stderr
        self._terminal = self._aside.isatty()
        self._thoughts = thoughts or self._terminal
        self._meter = Meter()
        self._reported = perf_counter()
        self._kind = ""  # of the text being written: content, reasoning or nothing
        self._thought_began = 0.0
        self._thought_tokens = 0
        self._at_line_start = True
        self._cleaner = Cleaner()

    @property
    def shows_colour(self) -> bool:
        """Whether a person may be shown colours."""
        return self._terminal and self._colour is None

    def progress(self, progress: Progress, label: str = "") -> None:
        """A line every few seconds on a terminal."""
        reading = self._meter.read(progress, label)
        now = perf_counter()
        if self._terminal and not reading.done and now - self._reported >= _PROGRESS_EVERY_S:
            self._reported = now
            self.say(f"{reading.label} {reading.text}", "dim")

    def waiting(self, label: str) -> None:
        """Not worth a line that stays."""

    def tick(self, *, stopping: bool) -> None:
        """Nothing moves in a plain view."""

    def show(self, event: Event) -> None:
        """Content to stdout; reasoning beside it, where a person is watching."""
        if event.kind == "content" and self._answer:
            self._switch("content")
            self._write(sys.stdout, self._cleaner.feed(event.text))
        elif event.kind == "reasoning" and self._thoughts:
            self._switch("reasoning")
            self._thought_tokens += len(event.token_ids)
            text = self._cleaner.feed(event.text)
            self._write(self._aside, click.style(text, dim=True) if self.shows_colour else text)

    def finish(self) -> None:
        """End the last line and make sure that all of it has been written."""
        self._switch("")
        self._meter.restart()
        sys.stdout.flush()

    def say(self, text: str, tone: str = "plain") -> None:
        """A line of the program's own."""
        click.secho(clean(text), file=self._aside, color=self._colour, **_TONES[tone])

    def attached(self, media: "Media") -> None:
        """One line in ASCII, as far as the name is."""
        self.say(media_line(media, times="x", arrow="->"), "dim")

    def _switch(self, kind: str) -> None:
        """Go to another kind of text; thinking has a line before and after it."""
        if kind == self._kind:
            return
        if self._kind and not self._at_line_start:
            self._write(sys.stdout if self._kind == "content" else self._aside, "\n")
        if self._kind == "reasoning":
            spent = perf_counter() - self._thought_began
            self.say(f"--- {thought(spent, self._thought_tokens)}", "dim")
        if kind == "reasoning":
            self._thought_began, self._thought_tokens = perf_counter(), 0
            self.say("--- thinking", "dim")
        self._kind, self._cleaner = kind, Cleaner()

    def _write(self, stream: TextIO, text: str) -> None:
        if text:
            stream.write(text)
            stream.flush()
            self._at_line_start = click.unstyle(text).endswith("\n")
