"""What `bench --plot DIR` draws: SVG files, each of what its rows have something to say about.

speed.svg      tokens per second by depth, measured with spread, and predicted
bandwidth.svg  GB/s of each tier beside what this machine has been measured to do
traffic.svg    bytes a token moves, by tier
experts.svg    picks by layer and expert
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cli.terminal_text import one_line
from cli.trace_plot import STYLE

Json = Mapping[str, Any]
TIERS = {
    "vram": ("copied to the device", "#1e8449"),
    "ram": ("experts, from RAM", "#2471a3"),
    "nvme": ("read from disk", "#c0392b"),
}


def draw(
    directory: Path, head: Json, rows: Sequence[Json], picks: Mapping[str, NDArray[np.int64]]
) -> list[Path]:
    """Write the files into a directory that is there; returns those that were written."""
    title = _title(head)
    drawn = []
    with mpl.rc_context(STYLE):
        for name, figure in {
            "speed": _speed(rows),
            "bandwidth": _bandwidth(rows),
            "traffic": _traffic(rows),
            "experts": _experts(picks),
        }.items():
            if figure is not None:
                figure.suptitle(title, fontsize=10, x=0.01, ha="left")
                path = directory / f"{name}.svg"
                figure.savefig(path, metadata={"Date": None})  # without the time of day
                drawn.append(path)
    return drawn


def _speed(rows: Sequence[Json]) -> Figure:
    """A panel for prompts and one for generated tokens, a line for each length and kind."""
    groups = [
        group
        for name in ("n_prompt", "n_gen")
        if (group := [(row, row[name]) for row in rows if row[name]])
    ]
    figure = Figure(figsize=(6.4, 3.4 * len(groups)), layout="constrained")
    for at, group in enumerate(groups):
        axes = figure.add_subplot(len(groups), 1, at + 1)
        word = "pp" if group[0][0]["n_prompt"] else "tg"
        for length, kind in dict.fromkeys((length, row["kind"]) for row, length in group):
            own = [row for row, n in group if (n, row["kind"]) == (length, kind)]
            _line(axes, sorted(own, key=lambda row: row["n_depth"]), f"{word}{length} {kind}")
        axes.set(ylabel="tokens/s", xlabel="tokens in the context before", ylim=(0, None))
        axes.legend(frameon=False)
    return figure


def _line(axes: Axes, rows: Sequence[Json], label: str) -> None:
    """Measured with its spread; dashed in the same colour what was predicted."""
    depths = [row["n_depth"] for row in rows]
    spread = [row["stddev_ts"] or 0.0 for row in rows]
    drawn = axes.errorbar(
        depths, [row["avg_ts"] for row in rows], spread, marker="o", ms=4, label=label
    )
    told = [(row["n_depth"], row["predicted_ts"]) for row in rows if row["predicted_ts"]]
    if told:
        colour = drawn.lines[0].get_color()
        axes.plot(*zip(*told, strict=True), "--", marker="_", color=colour, label="predicted")


def _bandwidth(rows: Sequence[Json]) -> Figure | None:
    """Bars of what a row used; a mark where the machine's own limit is."""
    bars = [
        (f"{_name(row)}: {TIERS[tier][0]}", own["gb_s"], own["peak_gb_s"], TIERS[tier][1])
        for row in rows
        for tier, own in row["tiers"].items()
        if own["gb_s"]
    ]
    if not bars:
        return None
    names, rates, peaks, colours = zip(*bars, strict=True)
    figure, axes = _bars(names)
    axes.barh(range(len(bars)), rates, color=colours, height=0.6)
    for at, peak in enumerate(peaks):
        if peak:
            axes.plot([peak, peak], [at - 0.4, at + 0.4], color="black", lw=2)
    axes.set_xlabel("GB/s; black: measured limit of this machine")
    return figure


def _traffic(rows: Sequence[Json]) -> Figure | None:
    moved = {
        tier: [(row["tiers"][tier]["bytes_per_token"] or 0.0) / 1e6 for row in rows]
        for tier in TIERS
    }
    if not any(map(any, moved.values())):
        return None
    figure, axes = _bars([_name(row) for row in rows])
    left = np.zeros(len(rows))
    for tier, amounts in moved.items():
        if any(amounts):
            label, colour = TIERS[tier]
            axes.barh(range(len(rows)), amounts, left=left, color=colour, label=label, height=0.6)
            left += amounts
    axes.set_xlabel("MB per token")
    axes.legend(frameon=False)
    return figure


def _experts(picks: Mapping[str, NDArray[np.int64]]) -> Figure | None:
    """A heat-map a case: each layer's picks, its most wanted expert first."""
    shown = {name: counts for name, counts in picks.items() if counts.any()}
    if not shown:
        return None
    figure = Figure(figsize=(7.2, 2.8 * len(shown)), layout="constrained")
    for at, (name, counts) in enumerate(shown.items()):
        axes = figure.add_subplot(len(shown), 1, at + 1)
        image = axes.imshow(
            -np.sort(-counts, axis=1), aspect="auto", cmap="inferno", interpolation="nearest"
        )
        axes.grid(visible=False)
        axes.set_title(name, fontsize=9, loc="left")
        axes.set(xlabel="experts of a layer, most picked first", ylabel="layer with experts")
        figure.colorbar(image, ax=axes, label="picks")
    return figure


def _bars(names: Sequence[str]) -> tuple[Figure, Axes]:
    """Room for horizontal bars, the first at the top."""
    figure = Figure(figsize=(7.2, 1.2 + 0.32 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    return figure, axes


def _name(row: Json) -> str:
    return f"{row['test']} {row['kind']}"


def _title(head: Json) -> str:
    environment = head["environment"]
    text = one_line(f"{head['model']['name']} on {environment['cpu'] or 'an unknown CPU'}")
    return text.replace("$", r"\$")  # no formula
