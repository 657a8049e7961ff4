"""Speeds of Kimi K2 and K2.5 that others published, against the plan's arithmetic.

    python bench/predictions.py [--write]      # prints the table; --write puts it into docs/

predictions.json has a row for each published figure: whose machine, which weights, what it gave.
For each one

  roofline   all bytes of a token at what memories promise on paper, nothing else: no figure may be
             above it
  expected   that, a second socket counted for less, times the share of it that an engine reaches:
             one number an engine, the median of half of its rows (which half, the rows' names
             decide); the other half checks it

The model's sizes are those of `hybrid.placement`, the bytes of a weight those of the quantisation.
"""

import argparse
import hashlib
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid.placement import PlanOptions, builtin_config
from hybrid.placement.needs import Needs, needs

DATA = Path(__file__).with_suffix(".json")
DOCUMENT = Path(__file__).parents[1] / "docs" / "predictions.md"
BEGIN, END = "<!-- begin: bench/predictions.py -->", "<!-- end -->"
SECOND_SOCKET = (
    0.45  # between 1.3 times (llama.cpp, mirrored) and 1.63 times (KTransformers) in all
)
WITHIN = 0.25
GB = 1e9


@dataclass(frozen=True, slots=True)
class Row:
    """One published figure beside what the arithmetic says."""

    id: str
    engine: str
    hardware: str
    weights: str
    source: str
    note: str
    miss: str  # why it misses, if it does
    tok_s: float
    span: tuple[float, float]  # lowest and highest reported
    token_gb: float  # bytes of a token, experts and backbone
    roofline: float
    counted: float  # the same with a second socket counted for less

    @property
    def share(self) -> float:
        """Of what could be reached."""
        return self.tok_s / self.counted


def model() -> Needs:
    """K2.5 as published; K2, K2-Thinking and K2.6 have the same language model."""
    return needs(builtin_config(), weights="bf16", vision=PlanOptions().vision)


def read(data: dict[str, Any], sizes: Needs) -> list[Row]:
    """All rows, by engine and name."""
    rows = [_row(each, sizes) for each in data["decode"]]
    return sorted(rows, key=lambda row: (row.engine, row.id))


def _row(each: dict[str, Any], sizes: Needs) -> Row:
    experts, backbone = token_bytes(each, sizes)
    cache = each["depth"] * sizes.kv_token_bytes
    sockets = each["sockets"]
    paper = each["ram_gb_s"] * GB
    counted = paper / sockets * (1 + SECOND_SOCKET * (sockets - 1))
    return Row(
        **{key: each[key] for key in ("id", "engine", "hardware", "weights", "source")},
        note=each["note"],
        miss=each["miss"],
        tok_s=each["tok_s"],
        span=tuple(each.get("span", (each["tok_s"], each["tok_s"]))),
        token_gb=(experts + backbone) / GB,
        roofline=1 / seconds(each, experts, backbone + cache, paper),
        counted=1 / seconds(each, experts, backbone + cache, counted),
    )


def token_bytes(each: dict[str, Any], sizes: Needs) -> tuple[float, float]:
    """Bytes of a token's experts and of its backbone, in the row's quantisation.

    A file's bytes less those of the backbone are those of all experts; `expert_bits` says it where
    no file is named: 4.5 as published, 5 with scales in fp32, as KTransformers keeps them.
    """
    weights = sum(sizes.token_flop.values()) / 2
    backbone = weights * each["backbone_bits"] / 8
    every = sizes.records * sizes.expert_flop / 2
    if "file_gb" in each:
        table = sizes.token_bytes("embedding") / 2 * each["backbone_bits"] / 8
        share = (each["file_gb"] * GB - backbone - table) / every
    else:
        share = each["expert_bits"] / 8
    return sizes.moe_layers * sizes.per_token * sizes.expert_flop / 2 * share, backbone


def seconds(each: dict[str, Any], experts: float, backbone: float, ram: float) -> float:
    """Of one token: CPU and GPU at once where experts are split, else one after the other."""
    if each["gpu_gb_s"] is None:
        return (experts + backbone) / ram
    gpu = each["gpu_gb_s"] * each["cards"] * GB
    beside = max(experts * (1 - each["on_gpu"]) / ram, experts * each["on_gpu"] / gpu)
    return backbone / gpu + beside


def split(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Rows to fit and rows to check: by turns in the order of their names' digests."""
    halves: tuple[list[Row], list[Row]] = ([], [])
    for engine in sorted({row.engine for row in rows}):
        own = [row for row in rows if row.engine == engine]
        own.sort(key=lambda row: hashlib.sha256(row.id.encode()).hexdigest())
        for at, row in enumerate(own):
            halves[at % 2].append(row)
    return halves


def fit(rows: list[Row]) -> dict[str, float]:
    """Share of the roofline by engine: the median of its rows."""
    engines = {row.engine for row in rows}
    return {
        name: statistics.median(row.share for row in rows if row.engine == name) for name in engines
    }


def error(row: Row, shares: dict[str, float]) -> float:
    """How far the expected speed is from the published one, as a share of the published."""
    return shares[row.engine] * row.counted / row.tok_s - 1


def unexplained(rows: list[Row]) -> list[str]:
    """What is wrong with the table: figures above the roofline, misses that nobody explains."""
    fitted, checked = split(rows)
    shares = fit(fitted)
    wrong = [f"{row.id}: {row.span[1]} is above the roofline" for row in rows
             if row.span[1] > row.roofline]  # fmt: skip
    for row in checked:
        missed = abs(error(row, shares)) > WITHIN
        if missed != bool(row.miss):
            wrong.append(f"{row.id}: {error(row, shares):+.0%}, explained: {row.miss or 'no'}")
    return wrong + [f"{row.id}: explained, but fitted" for row in fitted if row.miss]


def prefill_rows(data: dict[str, Any], sizes: Needs) -> Iterator[tuple[int, int, float, float]]:
    """Cards, tokens, published tokens/s and the roofline of streaming all experts once.

    The longer of all experts over all links and of all arithmetic on all cards.
    """
    found = data["prefill"]
    token = sum(sizes.token_flop.values()) - sizes.token_flop["head"]
    token += sizes.moe_layers * sizes.per_token * sizes.expert_flop
    pair = sizes.absorbed_flop * 320 / 1088  # keys and values of all heads (spec §3.2)
    for each in found["rows"]:
        cards, tokens = each["cards"], each["tokens"]
        flop = tokens * token + pair * tokens * (tokens + 1) / 2
        stream = sizes.routed_bytes / (cards * found["link_gb_s"] * GB)
        needed = max(stream, flop / (cards * found["gpu_gflop_s"] * GB))
        yield cards, tokens, each["tok_s"], tokens / needed


def table(data: dict[str, Any]) -> str:
    """The generated part of the document."""
    sizes = model()
    rows = read(data, sizes)
    fitted, _ = split(rows)
    shares = fit(fitted)
    lines = [
        "| machine | engine, weights | GB a token | published | roofline | share | expected | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        expected = shares[row.engine] * row.counted
        role = "fitted" if row in fitted else f"{error(row, shares):+.0%}"
        low, high = row.span
        told = f"{row.tok_s:g}" if low == high else f"{row.tok_s:g} ({low:g}-{high:g})"
        lines.append(
            f"| {row.hardware} | [{row.engine}]({row.source.split()[0]}), {row.weights} | "
            f"{row.token_gb:.1f} | {told} | {row.roofline:.1f} | {row.tok_s / row.roofline:.2f} | "
            f"{expected:.1f} | {role}{', missed' if row.miss else ''} |"
        )
    lines += ["", "Shares fitted: " + ", ".join(f"{k} {v:.2f}" for k, v in sorted(shares.items()))]
    lines += [
        "",
        _both_ways(rows),
        "",
        *_notes(rows),
        "",
        *_prefill(data, sizes),
        "",
        "Not used:",
        "",
    ]
    lines += [f"* {name}: {why}." for name, why in data["unused"].items()]
    return "\n".join(lines)


def _both_ways(rows: list[Row]) -> str:
    """How many rows are within the limit, also if the halves are changed over."""
    halves = split(rows)
    near = [
        sum(abs(error(row, fit(fitted))) <= WITHIN for row in checked)
        for fitted, checked in (halves, halves[::-1])
    ]
    told = [f"{n} of {len(half)}" for n, half in zip(near, halves[::-1], strict=True)]
    return (
        f"Within {WITHIN:.0%}: {told[0]} rows that were not fitted; with the halves changed "
        f"over, {told[1]}."
    )


def _notes(rows: list[Row]) -> Iterator[str]:
    yield "What had to be assumed:"
    yield ""
    yield from (f"* {row.hardware}, {row.weights}: {row.note}." for row in rows if row.note)
    yield ""
    yield "What misses, and why:"
    yield ""
    yield from (f"* {row.hardware}, {row.weights}: {row.miss}." for row in rows if row.miss)


def _prefill(data: dict[str, Any], sizes: Needs) -> Iterator[str]:
    found = data["prefill"]
    yield f"Prompts, {found['hardware']} ({found['source']}), roofline of one sweep:"
    yield ""
    yield "| cards | tokens | published | roofline | share |"
    yield "|---|---|---|---|---|"
    for cards, tokens, told, bound in prefill_rows(data, sizes):
        yield f"| {cards} | {tokens:,} | {told:g} | {bound:,.0f} | {told / bound:.2f} |"


def document(text: str, generated: str) -> str:
    """The document with its generated part replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{generated}\n\n{END}{after}"


def main() -> None:
    """Print the table, or put it into the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"into docs/{DOCUMENT.name}")
    args = parser.parse_args()
    data = json.loads(DATA.read_text("utf-8"))
    generated = table(data)
    print(generated)
    for line in unexplained(read(data, model())):
        print(f"wrong: {line}")
    if args.write:
        DOCUMENT.write_text(document(DOCUMENT.read_text("utf-8"), generated), "utf-8")


if __name__ == "__main__":
    main()
