"""The live tail: bounded, erased without a trace, and honest about links and HTML."""

import io

import pytest
from rich.text import Text

from cli import ui
from cli.ui import AnswerMarkdown, RichView, Screen, Tail
from hybrid.events import Event
from hybrid.progress import Progress


def screen(width=40, height=12) -> Screen:
    return Screen(file=io.StringIO(), force_terminal=True, width=width, height=height)


def shown(text: str) -> str:
    console = Screen(file=io.StringIO(), width=60, height=12)
    console.print(AnswerMarkdown(text))
    return console.file.getvalue()


@pytest.mark.parametrize("height", [6, 12, 50])
def test_the_tail_is_never_higher_than_a_third_of_the_screen(height):
    console = screen(height=height)
    tail = Tail(console)
    tail.redraw(Text("\n".join(f"line {i}" for i in range(200))))
    drawn = console.file.getvalue()
    assert drawn.count("\n") + 1 <= max(3, height // 3)
    assert drawn.endswith("line 199")  # its end, and the cursor stays on it


def test_the_height_check_sees_a_tail_without_a_budget(monkeypatch):
    """Planted: every line is drawn."""
    monkeypatch.setattr(Tail, "_lines", lambda self, tail: self._console.render_lines(tail))
    console = screen()
    Tail(console).redraw(Text("\n".join(f"line {i}" for i in range(200))))
    assert console.file.getvalue().count("\n") > 12 // 3


def test_redrawing_erases_as_many_lines_as_were_drawn():
    console = screen()
    tail = Tail(console)
    tail.redraw(Text("a\nb\nc"))
    console.file.truncate(0)
    tail.redraw(None)
    assert console.file.getvalue().count("\x1b[1A") == 2
    console.file.truncate(0)
    tail.redraw(None)
    assert "\x1b[1A" not in console.file.getvalue()


def test_a_link_shows_where_it_goes():
    text = shown("[your bank](http://evil.example)")
    assert "your bank" in text
    assert "http://evil.example" in text
    assert "\x1b]8" not in text


def test_html_is_text_and_does_not_vanish():
    assert "<div>" in shown("<div>block</div>")
    assert "<b>" in shown("some <b>bold</b>")


def test_markup_of_the_library_is_text():
    assert "[red]x[/red]" in shown("[red]x[/red]")


def test_drawing_takes_a_small_share_of_the_time(monkeypatch):
    """By a clock that only drawing moves: 10 ms a frame, ticks 1 ms apart."""
    now = [0.0]
    frames = []

    def redraw(self, tail, above=()):
        now[0] += 0.010
        frames.append(now[0])

    monkeypatch.setattr(ui, "perf_counter", lambda: now[0])
    monkeypatch.setattr(Tail, "redraw", redraw)
    view = RichView(colour=False)
    for _ in range(2000):
        view.progress(Progress("prefill", 1, 100, "tokens"))
        now[0] += 0.001
    assert 0.01 * len(frames) <= 1.2 * ui._SHARE * now[0] + 0.02
    assert len(frames) >= 3


def test_an_idle_tail_is_not_redrawn(monkeypatch):
    frames = []
    monkeypatch.setattr(Tail, "redraw", lambda self, tail, above=(): frames.append(tail))
    view = RichView(colour=False)
    view.show(Event("content", "some words", (1,)))
    before = len(frames)
    for _ in range(1000):
        view.tick(stopping=False)
    assert len(frames) <= before + 1
