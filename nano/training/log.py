"""What a run says of itself: a line on the terminal, a line in log.jsonl, a plot of the losses."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nano.training.loop import Report

LOG, PLOT = "log.jsonl", "loss.png"


def show(report: Report, step: int, steps: int, tokens_s: float, left_s: float) -> None:
    """One line: where, how fast, the worst tasks, how long still."""
    worst = sorted(report.losses.items(), key=lambda pair: -pair[1])[:4]
    told = " ".join(f"{task} {loss:.3f}" for task, loss in worst)
    sys.stdout.write(
        f"step {step:5d}/{steps} {report.stage:4s} loss {report.loss:.3f} | {told} | "
        f"{tokens_s:,.0f} tok/s | skew {report.skew:.1f} | {left_s / 60:.0f} min left\n"
    )
    sys.stdout.flush()


def record(directory: Path, step: int, seconds: float, report: Report) -> None:
    """Append a line of JSON."""
    line = {
        "step": step,
        "seconds": round(seconds, 3),
        "stage": report.stage,
        "tokens": report.tokens,
        "loss": round(report.loss, 5),
        "norm": round(report.norm, 4),
        "skew": round(report.skew, 3),
        "losses": {task: round(loss, 5) for task, loss in report.losses.items()},
    }
    with (directory / LOG).open("a") as file:
        file.write(json.dumps(line) + "\n")


def forget(directory: Path, step: int) -> None:
    """Drop lines behind `step`: a resumed run writes them again."""
    path = directory / LOG
    if path.exists():
        kept = [line for line in _lines(path) if line["step"] <= step]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))


def plot(directory: Path) -> None:
    """Draw the loss of every task over the steps; needs the extra "bench" (matplotlib)."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    lines = list(_lines(directory / LOG))
    tasks = sorted({task for line in lines for task in line["losses"]})
    figure, axes = plt.subplots(figsize=(10, 6))
    for task in tasks:
        points = [(line["step"], line["losses"][task]) for line in lines if task in line["losses"]]
        axes.plot(*zip(*points, strict=True), label=task, linewidth=0.8)
    axes.set(yscale="log", xlabel="step", ylabel="nats an id")
    axes.legend(fontsize=6, ncols=3)
    figure.savefig(directory / PLOT, dpi=120)
    plt.close(figure)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text().splitlines():
        yield json.loads(text)
