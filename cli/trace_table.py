"""Policies against capacities: the rows that `trace replay` prints, plots and writes as JSON."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from cli.figures import byte_scale, columns
from cli.terminal_text import one_line
from cli.trace_options import BOUND, Capacity
from hybrid.cache.policy import POLICIES
from hybrid.cache.simulate import replay, replay_bound, replay_ram
from hybrid.cache.trace_file import Trace

K25_RECORD_BYTES = 24_772_608  # one expert of Kimi K2.5
HEAD = {
    "vram": ("slots", "share", "policy", "hit", "warm", "promotions", "warm", "copied", "computed"),
    "ram": ("slots", "share", "policy", "hit", "warm", "reads", "warm", "read", "missed"),
}
NOTES = {
    "vram": "promotions, and bytes copied to the device and computed from RAM: per layer and token",
    "ram": "reads and bytes: per layer and token",
}
_FIXED = "static begins with the favourites of the first half: only its warm hits are a forecast"


def play(
    trace: Trace,
    capacities: Iterable[Capacity],
    names: Iterable[str],
    tier: str,
    record_bytes: int | None,
) -> list[dict[str, Any]]:
    """One row a capacity and policy; `behind_bound` is what Belady hits more when warm."""
    nbytes = record_bytes or trace.record_bytes or K25_RECORD_BYTES
    one = replay if tier == "vram" else replay_ram
    rows = []
    for slots in dict.fromkeys(capacity.slots(trace.experts) for capacity in capacities):
        bound = replay_bound(trace, slots)
        for name in dict.fromkeys(names):
            played = bound if name == BOUND else one(trace, POLICIES[name], slots)
            row = asdict(played) | {
                "share": slots / trace.experts,
                "promoted_bytes_per_layer_step": played.promotions_per_layer_step * nbytes,
                "missed_bytes_per_layer_step": played.misses_per_layer_step * nbytes,
                "behind_bound": bound.warm_hit_rate - played.warm_hit_rate,
            }
            rows.append(row)
    return rows


def text(trace: Trace, rows: list[dict[str, Any]], tier: str) -> str:
    """The table for people."""
    tokens, layers, k = trace.picks.shape
    head = f"{tokens:,} tokens, {int(trace.prompt.sum()):,} of them prompt; "
    head += f"{layers} layers, {trace.experts} experts, {k} per token"
    if trace.model:
        head += f"; {one_line(trace.model)}"
    table = columns([(*HEAD[tier], "behind belady"), *map(_cells, rows)])
    notes = [NOTES[tier]]
    if any(row["policy"] == "static" for row in rows):
        notes.append(_FIXED)
    return "\n".join([head, "", table, "", *notes])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(row["slots"]),
        f"{100 * row['share']:.1f}%",
        row["policy"],
        f"{row['hit_rate']:.3f}",
        f"{row['warm_hit_rate']:.3f}",
        f"{row['promotions_per_layer_step']:.2f}",
        f"{row['warm_promotions_per_layer_step']:.2f}",
        _size(row["promoted_bytes_per_layer_step"]),
        _size(row["missed_bytes_per_layer_step"]),
        f"{row['behind_bound']:.3f}",
    )


def _size(nbytes: float) -> str:
    scale, unit = byte_scale(nbytes)
    return f"{nbytes / scale:.1f} {unit}"
