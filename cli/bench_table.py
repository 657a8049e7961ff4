"""Rows of a benchmark as a Markdown table like llama-bench's, or as CSV.

Columns about tiers, predictions and kinds are there only if some row has something to say. Names of
models come from directories, and a file may be opened by anything: no cell can leave its place.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cli.terminal_text import one_line

TIERS = ("vram", "ram", "nvme")
Json = Mapping[str, Any]
_MARKUP = re.compile(r"([\\|`*_<>\[\]])")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute
_FLAT = ("kind", "n_prompt", "n_gen", "n_depth", "avg_ts", "stddev_ts", "median_ts",
         "predicted_ts", "error", "predicted_at_hits_ts", "distinct_experts_per_step",
         "promotions_per_token", "stalled_s_per_token", "output_hash", "others_cores",
         "stolen_cores")  # fmt: skip


def markdown(head: Json, rows: Sequence[Json]) -> str:
    """The table, and what it was measured on."""
    tiers = any(_share(row, tier) for row in rows for tier in ("vram", "nvme"))
    wanted = {
        "prompts": any(row["kind"] != "rotating" for row in rows),
        "predicted": any(row["predicted_ts"] is not None for row in rows),
        **dict.fromkeys(("hits vram", "hits ram", "disk GB/s", "stall"), tiers),
    }
    cells = [_cells(head, row) for row in rows]
    names = [name for name in cells[0] if wanted.get(name, True)]
    lines = [
        "| " + " | ".join(names) + " |",
        "| " + " | ".join("---" if _is_text(name) else "---:" for name in names) + " |",
        *("| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in cells),
    ]
    return "\n".join([*lines, "", _machine(head)])


def csv_text(head: Json, rows: Sequence[Json]) -> str:
    """A line a row, everything about the run repeated in each."""
    written = io.StringIO()
    table = [_flat(head, row) for row in rows]
    writer = csv.DictWriter(written, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: _harmless(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in table
    )
    return written.getvalue()


def _cells(head: Json, row: Json) -> dict[str, str]:
    model, options, tiers = head["model"], head["options"], row["tiers"]
    return {
        "model": str(model["name"]),
        "size": _size(model["bytes"]),
        "params": _count(model["parameters"]),
        "backend": _backend(options),
        "threads": str(options["threads"]),
        "test": row["test"],
        "prompts": row["kind"],
        "t/s": _spread(row["avg_ts"], row["stddev_ts"]),
        "median": f"{row['median_ts']:.2f}",
        "predicted": _figure(row["predicted_ts"], ".2f"),
        "experts GB/s": _of_peak(tiers["ram"]),
        "hits vram": _figure(_share(row, "vram"), ".1%"),
        "hits ram": _figure(_share(row, "ram"), ".1%"),
        "disk GB/s": _of_peak(tiers["nvme"]),
        "stall": _figure(1e3 * row["stalled_s_per_token"], ".2f") + " ms/t",
        "output": row["output_hash"][:8],
    }


def _flat(head: Json, row: Json) -> dict[str, Any]:
    model, options = head["model"], head["options"]
    return {
        "build_commit": head["environment"]["commit"],
        "cpu_info": head["environment"]["cpu"],
        "model": model["name"],
        "model_size": model["bytes"],
        "model_n_params": model["parameters"],
        "backend": _backend(options),
        "n_threads": options["threads"],
        "test": row["test"],
        **{name: row[name] for name in _FLAT if name in row},
        **{
            f"{tier}_{name}": value
            for tier in TIERS
            for name, value in row["tiers"][tier].items()
            if name != "peak_gb_s"
        },
        **{f"{part}_s": value for part, value in row["seconds_per_token"].items()},
    }


def _machine(head: Json) -> str:
    environment = head["environment"]
    parts = [environment["cpu"] or "unknown CPU", f"load {environment['load_average']}"]
    parts += [f"commit {environment['commit']}"] if environment["commit"] else []
    return one_line(" · ".join(parts))


def _backend(options: Json) -> str:
    weights = "" if options["backbone_weights"] == "bf16" else f" {options['backbone_weights']}"
    return f"{str(options['device']).upper()}{weights} + {options['isa']} {options['activation']}"


def _spread(mean: float, deviation: float | None) -> str:
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def _of_peak(tier: Json) -> str:
    if tier["gb_s"] is None:
        return ""
    share = "" if tier["of_peak"] is None else f" ({tier['of_peak']:.0%})"
    return f"{tier['gb_s']:.1f}{share}"


def _share(row: Json, tier: str) -> float | None:
    share: float | None = row["tiers"][tier]["share"]
    return share


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _size(nbytes: int) -> str:
    scale, unit = (2**30, "GiB") if nbytes >= 2**30 else (2**20, "MiB")
    return f"{nbytes / scale:.2f} {unit}"


def _count(number: int) -> str:
    for scale, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return f"{number / 1e3:.2f} k"


def _is_text(name: str) -> bool:
    return name in ("model", "backend", "prompts", "output")


def _cell(text: str) -> str:
    return _MARKUP.sub(r"\\\1", one_line(text))


def _harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(_FORMULA) else text
