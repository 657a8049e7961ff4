"""Hit rate over capacity, a line a policy: what `trace replay --plot` draws."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "font.size": 10,
    "svg.hashsalt": "kimi-local",  # the same file for the same rows
    "svg.fonttype": "none",
}
COLOURS = {
    "decayed-lfu": "#c0392b",
    "lru": "#2471a3",
    "lfu": "#1e8449",
    "static": "#7d6608",
    "belady": "#808080",
}


def draw(path: Path, rows: list[dict[str, Any]], title: str) -> None:
    """Write an SVG or PNG, by the name's ending; the directory must be there."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for name in dict.fromkeys(row["policy"] for row in rows):
            _line(axes, name, [row for row in rows if row["policy"] == name])
        axes.set_xlabel("slots of a layer, % of its experts")
        axes.set_ylabel("hits, % of picks (warm half)")
        axes.set_ylim(0, 100)
        axes.set_xlim(left=0)
        axes.set_title(title.replace("$", r"\$"), fontsize=10, loc="left")
        axes.legend(frameon=False, loc="lower right")
        figure.savefig(path, dpi=150, metadata=_metadata(path))


def _line(axes: Axes, name: str, rows: list[dict[str, Any]]) -> None:
    points = sorted((100 * row["share"], 100 * row["warm_hit_rate"]) for row in rows)
    axes.plot(
        [share for share, _ in points],
        [hits for _, hits in points],
        color=COLOURS[name],
        linestyle="--" if name == "belady" else "-",
        marker="o",
        markersize=4,
        label=name,
    )


def _metadata(path: Path) -> dict[str, Any]:
    """Without the time of day."""
    return {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
