"""Numbers as text: rates, times, gauges."""

import pytest

from cli import figures
from cli.figures import Meter
from cli.turn import Figures
from hybrid.events import Usage
from hybrid.progress import Progress
from tests.cli.fake_engine import media


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, text):
    assert figures.duration(seconds) == text


def test_progress_has_amount_rate_and_time_left():
    clock = Clock()
    meter = Meter(clock)
    first = meter.read(Progress("experts", 0, 600 * 10**9, "bytes"))
    assert (first.label, first.text) == ("loading experts", "0.0/600.0 GB")
    clock.now = 10.0
    later = meter.read(Progress("experts", 30 * 10**9, 600 * 10**9, "bytes"))
    assert later.text == "30.0/600.0 GB · 3.0 GB/s · 3 min 10 s left"
    assert later.fraction == 0.05
    assert not later.done
    clock.now = 200.0
    last = meter.read(Progress("experts", 600 * 10**9, 600 * 10**9, "bytes"))
    assert last.text == "600.0/600.0 GB · 3.0 GB/s"
    assert last.done


def test_a_new_phase_has_its_own_rate():
    clock = Clock()
    meter = Meter(clock)
    meter.read(Progress("weights", 0, 100, "bytes"))
    clock.now = 100.0
    meter.read(Progress("prefill", 0, 20_000, "tokens"))
    clock.now = 110.0
    assert meter.read(Progress("prefill", 1000, 20_000, "tokens")).text == (
        "1,000/20,000 · 100 tok/s · 3 min 10 s left"
    )


def test_a_reused_prefix_does_not_count_as_speed():
    clock = Clock()
    meter = Meter(clock)
    meter.read(Progress("prefill", 900, 1000, "tokens"))
    clock.now = 1.0
    assert "50 tok/s" in meter.read(Progress("prefill", 950, 1000, "tokens")).text


def test_looking_names_what_is_looked_at():
    clock = Clock()
    meter = Meter(clock)
    first = meter.read(Progress("vision", 0, 4144, "patches"))
    assert (first.label, first.text) == ("looking", "0/4,144")
    clock.now = 2.0
    later = meter.read(Progress("vision", 2072, 4144, "patches"), "looking at board.png")
    assert later.label == "looking at board.png"
    assert later.text == "2,072/4,144 · 1036 patches/s · 2.0 s left"


def test_an_empty_phase_divides_by_nothing():
    assert Meter(Clock()).read(Progress("kernels", 0, 0, "kernels")).fraction == 1.0


def test_media_say_their_size_and_tokens():
    image = media("image", "a\x1b]0;owned\x07\nb.png", 1024, 768)
    assert figures.media_line(image) == "a b.png 1024×768 → 1,036 tokens"
    plain = figures.media_line(image, times="x", arrow="->")
    assert plain == "a b.png 1024x768 -> 1,036 tokens"
    video = media("video", "c.mp4", 640, 360)
    assert figures.media_line(video) == "c.mp4 640×360, 4.0 s → 598 tokens"


def test_the_stats_line_leaves_out_what_was_not_measured():
    usage = Usage(prompt_tokens=1140, completion_tokens=264)
    full = figures.stats_line(Figures(8.1, 0.0, 148.2, 12.61, 30.0, 9.0), usage, 65536)
    assert full == ("12.6 tok/s · first token 8.1 s · 264 tokens · prefill 148 tok/s · context 2%")
    assert figures.stats_line(Figures(None, 0.0, None, None, 1.0, 0.0), Usage(), 100) == "0 tokens"


@pytest.mark.parametrize(
    ("part", "whole", "percent", "gauge"),
    [
        (0, 100, "0%", "▱▱▱▱"),
        (1, 1000, "<1%", "▰▱▱▱"),
        (50, 100, "50%", "▰▰▱▱"),
        (100, 100, "100%", "▰▰▰▰"),
        (150, 100, "150%", "▰▰▰▰"),
        (1, 0, "?", "▱▱▱▱"),
    ],
)
def test_gauges(part, whole, percent, gauge):
    assert figures.percent(part, whole) == percent
    assert figures.gauge(part, whole, 4) == gauge


def test_thought_and_columns():
    assert figures.thought(12.2, 840) == "Thought for 12 s · 840 tokens"
    assert figures.thought(1, 1) == "Thought for 1.0 s · 1 token"
    assert figures.columns([("a", "b"), ("ccc", "d")]) == "  a    b\n  ccc  d"


def test_the_stats_line_says_where_experts_were_unless_all_were_in_ram():
    reads = {"vram": 610, "ram": 380, "nvme": 10}
    usage = Usage(completion_tokens=264)
    line = figures.stats_line(Figures(8.1, 0.0, None, 12.61, 30.0, 9.0, reads), usage, 65536)
    assert line.endswith(" · 264 tokens · experts 61% on the device, 1% from disk")
    plain = Figures(8.1, 0.0, None, 12.61, 30.0, 9.0, {"vram": 0, "ram": 480, "nvme": 0})
    assert "experts" not in figures.stats_line(plain, usage, 65536)


def test_the_stats_line_has_the_plan_beside_what_was_measured():
    figure = Figures(None, 0.0, None, 12.61, 30.0, 9.0, {}, planned_tok_s=14.08)
    line = figures.stats_line(figure, Usage(completion_tokens=264), 65536)
    assert line == "12.6 tok/s (plan 14.1) · 264 tokens"
