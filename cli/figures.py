"""Numbers as people read them: the stats line, the gauge, and progress with rate and ETA."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from cli.terminal_text import one_line
from cli.turn import Figures
from hybrid.events import Usage
from hybrid.progress import Phase, Progress, Unit

if TYPE_CHECKING:
    from hybrid.vision.media import Media

_LABELS: dict[Phase, str] = {
    "kernels": "compiling kernels",
    "weights": "loading weights",
    "experts": "loading experts",
    "prefill": "prefill",
    "vision": "looking",
    "prepare": "preparing",
    "verify": "verifying",
}
_RATE_AFTER_S = 0.2  # before that a rate is noise


@dataclass(frozen=True, slots=True)
class Reading:
    """One state of a progress line."""

    label: str
    fraction: float
    text: str
    done: bool


class Meter:
    """Turns Progress into readings; remembers when the present phase began."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._phase: Phase | None = None
        self._began = 0.0
        self._first_done = 0

    def read(self, progress: Progress, label: str = "") -> Reading:
        """The line for `progress`: amount, rate over the phase so far, time left."""
        if progress.phase != self._phase or progress.done < self._first_done:
            self._phase, self._began = progress.phase, self._clock()
            self._first_done = progress.done
        spent = self._clock() - self._began
        parts = [amount(progress)]
        moved = progress.done - self._first_done
        if spent >= _RATE_AFTER_S and moved > 0:
            rate = moved / spent
            parts.append(_rate(rate, progress.unit))
            if progress.done < progress.total:
                parts.append(f"{duration((progress.total - progress.done) / rate)} left")
        fraction = progress.done / progress.total if progress.total else 1.0
        label = label or _LABELS.get(progress.phase, progress.phase)
        return Reading(label, fraction, " · ".join(parts), progress.done >= progress.total)

    def restart(self) -> None:
        """The next progress starts a phase, even if it has the name of the last one."""
        self._phase = None


def amount(progress: Progress) -> str:
    """How much of how much."""
    if progress.unit == "bytes":
        scale, name = byte_scale(progress.total)
        return f"{progress.done / scale:.1f}/{progress.total / scale:.1f} {name}"
    return f"{progress.done:,}/{progress.total:,}"


def byte_scale(count: float) -> tuple[float, str]:
    """The unit that suits a number of bytes."""
    for scale, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= scale:
            return scale, name
    return 1.0, "B"


def duration(seconds: float) -> str:
    """Seconds as "9.4 s", "45 s", "3 min 20 s" or "2 h 05 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def thought(seconds: float, tokens: int) -> str:
    """The folded thinking."""
    return f"Thought for {duration(seconds)} · {_tokens(tokens)}"


def stats_line(figures: Figures, usage: Usage, kv_tokens: int) -> str:
    """One line on how an answer went; what was not measured is left out."""
    parts = []
    if figures.decode_tok_s is not None:
        parts.append(f"{_speed(figures.decode_tok_s)} tok/s")
        if figures.planned_tok_s is not None:
            parts[-1] += f" (plan {_speed(figures.planned_tok_s)})"
    if figures.first_token_s is not None:
        parts.append(f"first token {duration(figures.first_token_s)}")
    parts.append(_tokens(usage.completion_tokens))
    if figures.looked_s:
        parts.append(f"looked for {duration(figures.looked_s)}")
    if figures.prefill_tok_s is not None:
        parts.append(f"prefill {figures.prefill_tok_s:.0f} tok/s")
    parts += _tiers(figures.expert_reads)
    if usage.prompt_tokens:  # unknown when the answer was cut off before the engine counted
        used = usage.prompt_tokens + usage.completion_tokens
        parts.append(f"context {percent(used, kv_tokens)}")
    return " · ".join(parts)


def _speed(tok_s: float) -> str:
    return f"{tok_s:.{0 if tok_s >= 100 else 1}f}"


def _tiers(reads: Mapping[str, int]) -> list[str]:
    """Where the experts were, if not all in RAM."""
    total = sum(reads.values())
    names = {"vram": "on the device", "nvme": "from disk"}
    shares = [
        f"{percent(reads[tier], total)} {name}" for tier, name in names.items() if reads.get(tier)
    ]
    return [f"experts {', '.join(shares)}"] if shares else []


def media_line(media: "Media", times: str = "×", arrow: str = "→") -> str:
    """What is shown and what it costs: "board.jpg 1024×768 → 1,036 tokens"."""
    length = f", {duration(media.seconds)}" if media.kind == "video" else ""
    size = f"{media.width}{times}{media.height}{length}"
    return f"{one_line(media.name)} {size} {arrow} {_tokens(media.tokens)}"


def percent(part: int, whole: int) -> str:
    """A share that says "<1%" rather than claiming that something is nothing."""
    if whole <= 0:
        return "?"
    share = 100 * part / whole
    return "<1%" if 0 < share < 1 else f"{share:.0f}%"


def gauge(part: int, whole: int, width: int = 10) -> str:
    """A bar of `width` cells; any use at all shows in the first."""
    filled = min(width, -(-part * width // whole)) if whole > 0 else 0
    return "▰" * filled + "▱" * (width - filled)


def columns(rows: Iterable[tuple[str, ...]], gap: int = 2) -> str:
    """Rows as aligned text."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    pad = " " * gap
    return "\n".join(
        pad + pad.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def _rate(rate: float, unit: Unit) -> str:
    if unit == "bytes":
        scale, name = byte_scale(rate)
        return f"{rate / scale:.1f} {name}/s"
    if unit == "tokens":
        return f"{rate:.0f} tok/s"
    return f"{rate:.0f} patches/s" if unit == "patches" else f"{rate:.1f}/s"


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count:,} tokens"
