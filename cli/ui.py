"""The screen of a chat: all rich code is here.

    finished blocks         printed once, never drawn again
    ┌ live tail ─────────┐  redrawn at most 12 times a second, never higher than a third of the
    │ progress | thought │  screen: what is taller than the screen cannot be erased and flickers
    │ | unfinished block │
    └────────────────────┘

Thinking lives only in the tail and folds to one line when the answer begins.
"""

from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.control import Control
from rich.markdown import Heading, Markdown
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from cli.figures import Meter, Reading, duration, media_line, thought
from cli.markdown_blocks import BlockSplitter, Piece, parser
from cli.terminal_text import Cleaner, clean
from hybrid.events import Event
from hybrid.progress import Progress

if TYPE_CHECKING:
    from hybrid.vision.media import Media

_FRAME_S = 1 / 12
_SHARE = 0.03  # of the time may go into drawing: a frame of 3 ms is followed by 100 ms without
_CLOCK_S = 0.5  # how often a tail without news is redrawn for its running seconds
_CODE_THEME = "ansi_dark"  # the terminal's own colours
_TONES = {"dim": "dim", "warn": "yellow", "error": "red", "plain": ""}
_CODE_CONTEXT = 200  # lines that a syntax colour may depend on
_BAR_WIDTH = 16


class Screen(Console):
    """A rich console whose closed pipe is the program's business, not rich's."""

    def on_broken_pipe(self) -> None:
        """Let the BrokenPipeError that is being handled reach `cli.main`."""
        raise


class LeftHeading(Heading):
    """A heading where the text is, not in the middle of a wide terminal."""

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class AnswerMarkdown(Markdown):
    """Markdown in our dialect; links show their address, since a model may not hide it."""

    elements: ClassVar = {**Markdown.elements, "heading_open": LeftHeading}

    def __init__(self, text: str) -> None:
        super().__init__(text, code_theme=_CODE_THEME, hyperlinks=False)
        self.parsed = parser().parse(text)


class Tail:
    """The live lines at the bottom: erased and rewritten in one go with what is printed above."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._height = 0

    def redraw(self, tail: RenderableType | None, above: Iterable[RenderableType] = ()) -> None:
        """Print `above` for good, then `tail` under it, cut to the line budget."""
        console = self._console
        with console:  # one write
            self._erase()
            for item in above:
                console.print(item)
            if tail is not None:
                lines = self._lines(tail)
                self._height = len(lines)
                if lines:
                    console.print(_Lines(lines, tail=True), end="")

    def _lines(self, tail: RenderableType) -> list[list[Segment]]:
        console = self._console
        options = console.options.update_width(max(8, console.width - 1))
        lines = console.render_lines(tail, options, pad=False)
        return lines[-max(3, console.height // 3) :]

    def _erase(self) -> None:
        if self._height:
            clear = (ControlType.ERASE_IN_LINE, 2)
            self._console.control(Control(ControlType.CARRIAGE_RETURN, clear))
            for _ in range(self._height - 1):
                self._console.control(Control((ControlType.CURSOR_UP, 1), clear))
            self._height = 0


class RichView:
    """Shows answers with markdown and a live tail on a terminal."""

    def __init__(self, *, colour: bool, answers: bool = True, one_shot: bool = False) -> None:
        """`answers`: content is shown; `one_shot`: everything but content goes to stderr."""
        self._one_shot = one_shot
        self._console = Screen(no_color=not colour, highlight=False, soft_wrap=False)
        self._aside = (
            Screen(stderr=True, no_color=not colour, highlight=False) if one_shot else self._console
        )
        self._answers = answers
        self._meter = Meter()
        self._begin()

    def _begin(self) -> None:
        self._tail = Tail(self._aside)
        self._drawn = self._next_frame = 0.0
        self._changed = False
        self._reading: Reading | None = None
        self._thought: list[str] = []
        self._thought_tokens = 0
        self._thought_began = 0.0
        self._cleaner = Cleaner()
        self._splitter = BlockSplitter()
        self._code: list[str] = []
        self._in_content = False
        self._stopping = False

    def progress(self, progress: Progress, label: str = "") -> None:
        """Draw the bar; it goes away when the phase is done."""
        reading = self._meter.read(progress, label)
        self._reading = None if reading.done else reading
        self._refresh(force=reading.done)

    def waiting(self, label: str) -> None:
        """Say at once what is going on; the first progress takes its place."""
        self._tail.redraw(Text(f"  {label} …", style="dim"))

    def tick(self, *, stopping: bool) -> None:
        """Let clocks in the tail go on."""
        newly = stopping and not self._stopping
        self._stopping = stopping
        self._refresh(force=newly, changed=False)

    def show(self, event: Event) -> None:
        """A piece of thinking or of the answer."""
        self._reading = None
        if event.kind == "reasoning":
            self._think(event)
        elif event.kind == "content" and self._answers:
            self._fold()
            self._content(self._splitter.feed(self._cleaner.feed(event.text)))

    def finish(self) -> None:
        """Print what is left; nothing live remains on the screen."""
        self._reading = None
        self._fold()
        self._content(self._splitter.close(), force=True)
        self._tail.redraw(None)
        self._meter.restart()
        self._begin()

    def say(self, text: str, tone: str = "plain") -> None:
        """A message of the program's own."""
        self._aside.print(Text(clean(text), style=_TONES[tone]))

    def attached(self, media: "Media") -> None:
        """What it is, how large, and what it costs."""
        self.say(f"  ▸ {media.kind} {media_line(media)}", "dim")

    def _think(self, event: Event) -> None:
        if not self._thought:
            self._thought_began = perf_counter()
        self._thought.append(self._cleaner.feed(event.text))
        self._thought_tokens += len(event.token_ids)
        self._refresh()

    def _fold(self) -> None:
        """Thinking is over: one line stays of it."""
        if not self._thought:
            return
        spent = perf_counter() - self._thought_began
        hint = "" if self._one_shot else " (/thought shows it)"
        line = f"▾ {thought(spent, self._thought_tokens)}{hint}"
        self._thought = []
        self._cleaner = Cleaner()
        self._tail.redraw(None, [Text(line, style="dim")])

    def _content(self, pieces: list[Piece], *, force: bool = False) -> None:
        if not self._in_content and (pieces or self._splitter.rest):
            self._in_content = True
            self._tail.redraw(None)
            self._tail = Tail(self._console)
        if pieces:
            above = [item for piece in pieces for item in self._finished(piece)]
            self._draw(above)
        else:
            self._refresh(force=force)

    def _finished(self, piece: Piece) -> list[RenderableType]:
        gap: list[RenderableType] = [] if piece.joined else [Text()]
        if piece.kind != "code":
            return [*gap, self._block(piece.text)]
        if not piece.joined:
            self._code = []
        self._code.append(piece.text)
        return [*gap, self._code_line(piece.language)]

    def _code_line(self, language: str) -> RenderableType:
        """The last line, coloured in the light of the lines before it."""
        seen = self._code[-_CODE_CONTEXT:]
        code = "\n".join(seen)
        lines = Syntax(code, language or "text", theme=_CODE_THEME).highlight(code).split("\n")
        line = lines[len(seen) - 1] if len(lines) >= len(seen) else Text()
        return Padding(line, (0, 0, 0, 2))

    def _refresh(self, *, force: bool = False, changed: bool = True) -> None:
        """Redraw if it is due; drawing takes the engine's thread, so it gets a small share."""
        self._changed |= changed
        now = perf_counter()
        clock = now - self._drawn >= _CLOCK_S and (self._thought or self._reading)
        if force or (now >= self._next_frame and (self._changed or clock)):
            self._draw()

    def _draw(self, above: Iterable[RenderableType] = ()) -> None:
        began = perf_counter()
        self._tail.redraw(self._unfinished(), above)
        self._drawn = perf_counter()
        self._changed = False
        self._next_frame = self._drawn + max(_FRAME_S, (self._drawn - began) / _SHARE)

    def _unfinished(self) -> RenderableType | None:
        parts: list[RenderableType] = []
        if self._reading is not None:
            parts.append(_bar(self._reading))
        elif self._thought:
            parts.append(self._thinking())
        elif self._splitter.rest.strip():
            parts.append(self._open_block())
        if self._stopping:
            parts.append(Text("  stopping… (Ctrl-C again to insist)", style="yellow"))
        return Group(*parts) if parts else None

    def _thinking(self) -> RenderableType:
        spent = duration(perf_counter() - self._thought_began)
        head = Text(f"Thinking · {spent} · {self._thought_tokens:,} tokens", style="dim bold")
        shown = "".join(self._thought)[-self._visible_characters() :].strip("\n")
        budget = max(2, self._aside.height // 3 - 2)
        lines = Text(shown, style="dim").wrap(self._aside, max(8, self._aside.width - 3))
        return Group(head, *(Padding(line, (0, 0, 0, 2)) for line in lines[-budget:]))

    def _open_block(self) -> RenderableType:
        rest = self._splitter.rest[-self._visible_characters() :]
        if self._splitter.language is not None:
            return Padding(Text(rest), (0, 0, 0, 2))
        return Group(Text(), self._block(rest))

    def _block(self, text: str) -> "_Lines":
        """One markdown block without the blank lines that rich puts around some kinds."""
        console = self._console
        options = console.options.update_width(max(8, console.width - 1))
        lines = console.render_lines(AnswerMarkdown(text.strip("\n")), options, pad=False)
        shown = [index for index, line in enumerate(lines) if _visible(line)]
        return _Lines(lines[shown[0] : shown[-1] + 1] if shown else [])

    def _visible_characters(self) -> int:
        return self._console.width * self._console.height  # no tail shows more


def _bar(reading: Reading) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=1.0, completed=reading.fraction, width=_BAR_WIDTH)
    grid.add_row(
        Text(f"  {reading.label}", no_wrap=True),
        bar,
        Text(reading.text, style="dim", no_wrap=True, overflow="ellipsis"),
    )
    return grid


def _visible(line: list[Segment]) -> bool:
    return any(segment.text.strip() for segment in line)


class _Lines:
    """Rendered lines; in the tail none follows the last, so that the cursor stays on it."""

    def __init__(self, lines: list[list[Segment]], *, tail: bool = False) -> None:
        self._rows = lines
        self._tail = tail

    def __rich_console__(self, *_: object) -> Iterable[Segment]:
        for index, line in enumerate(self._rows):
            yield from line
            if not self._tail or index < len(self._rows) - 1:
                yield Segment.line()
