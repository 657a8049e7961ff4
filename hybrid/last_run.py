"""What the last answers took, beside what the plan had said: a small file that every answer renews.

    {"version": 1, "runs": [                       oldest first, at most KEPT
       {"model": "...", "prompt_tokens": 812, "decode_steps": 264,
        "measured":  {"decode_tok_s": 4.1, "prefill_tok_s": 31.0,
                      "decode_s": {"attention": 0.05, "experts": 0.17, ...},  of a token, by part
                      "prefill_s": {"attention": 0.01, ...},                  of a prompt's token
                      "hits": {"vram": 0, "ram": 0.9, "nvme": 0.1},           shares of the picks
                      "rates": {"experts_gb_s": 70.1, "disk_gb_s": 3.2}},
        "predicted": {the same}}]}

The file lies beside the compiled kernels. Names of seconds are those of `engine.stats()` and of a
plan, rates those of hybrid.hardware.Rates; what is not known is left out.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hybrid.config_section import Section
from hybrid.errors import ConfigError
from hybrid.model_files import parse_json_object
from hybrid.placement import Plan

VERSION = 1
KEPT = 8  # runs
NAME = "last-run"
FILE = "last run"
LONGEST = 1 << 20  # bytes
MOST_TEXT, MOST_PARTS = 4096, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Speeds of one request: as measured, or as predicted."""

    decode_tok_s: float | None = None
    prefill_tok_s: float | None = None
    decode_s: Mapping[str, float] = field(default_factory=dict)  # of a token, by part
    prefill_s: Mapping[str, float] = field(default_factory=dict)  # of a prompt's token, by part
    hits: Mapping[str, float] = field(default_factory=dict)  # vram, ram, nvme: shares of picks
    rates: Mapping[str, float] = field(default_factory=dict)  # GB/s


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One answer."""

    model: str
    prompt_tokens: int  # computed, not taken from the cache
    decode_steps: int
    measured: Side
    predicted: Side


@dataclass(frozen=True, slots=True)
class Moment:
    """What had been spent at some moment of a request: `asdict(model.spent)`, and the clock."""

    spent: Mapping[str, float]
    clock: float

    def each(self, later: "Moment", tokens: int) -> tuple[float | None, dict[str, float]]:
        """Tokens a second until `later`, and seconds of a token by part; the rest is hand-offs."""
        whole = later.clock - self.clock
        if tokens <= 0 or whole <= 0:
            return None, {}
        parts = {
            name.removesuffix("_s"): max(0.0, later.spent[name] - before) / tokens
            for name, before in self.spent.items()
            if name.endswith("_s")
        }
        rest = max(0.0, whole / tokens - sum(parts.values()))
        return tokens / whole, parts | {"hand-offs": rest}


def measured(
    moments: tuple[Moment, Moment, Moment],
    tokens: tuple[int, int],
    uses: Mapping[str, int],
    rates: Mapping[str, float],
) -> Side:
    """One side of a run, from what was spent before, between and after prefill and decode.

    `tokens` of the prompt that were computed, and steps of decoding; `uses` of experts by tier.
    """
    start, between, end = moments
    prefill, prefill_s = start.each(between, tokens[0])
    decode, decode_s = between.each(end, tokens[1])
    total = sum(uses.values())
    return Side(
        decode_tok_s=decode,
        prefill_tok_s=prefill,
        decode_s=decode_s,
        prefill_s=prefill_s,
        hits={tier: count / total for tier, count in uses.items()} if total else {},
        rates=rates,
    )


def planned(plan: Plan, prompt_tokens: int, depth: int) -> Side:
    """The other side: what a plan says of such a prompt, and of a token after `depth` others."""
    decode, (_, _, speeds) = plan.decode_parts(depth), plan.parts
    prefill = plan.prefill_parts(prompt_tokens) if prompt_tokens > 0 else {}
    return Side(
        decode_tok_s=1 / sum(decode.values()),
        prefill_tok_s=prompt_tokens / sum(prefill.values()) if prefill else None,
        decode_s=decode,
        prefill_s={name: seconds / prompt_tokens for name, seconds in prefill.items()},
        hits={"vram": plan.hits.vram, "ram": plan.hits.ram, "nvme": plan.hits.nvme},
        rates={"experts_gb_s": speeds.experts_gb_s, "disk_gb_s": speeds.disk_gb_s},
    )


def remember(run: Run) -> None:
    """Keep a run; the oldest of too many is forgotten. Where nothing can be written, nothing is."""
    from hybrid.cpu_experts import kernel_files

    last = recall() or {"version": VERSION, "runs": []}
    runs = [*last["runs"], asdict(run)][-KEPT:]
    content = json.dumps({"version": VERSION, "runs": runs}).encode()
    kernel_files.write(NAME, NAME, content)


def recall() -> dict[str, Any] | None:
    """What was kept, checked; None if nothing was, or nothing that can be read."""
    from hybrid.cpu_experts import kernel_files

    content = kernel_files.read(NAME, NAME)
    if content is None or len(content) > LONGEST:
        return None
    try:
        last = parse_json_object(content, FILE, ConfigError)
        parse(last)
    except ConfigError:  # of another version
        return None
    return last


def parse(last: Mapping[str, Any]) -> list[Run]:
    """The runs of the format above; raises ConfigError in one line."""
    top = Section(last, "", FILE)
    top.exactly("version", VERSION)
    runs = last.get("runs")
    if not isinstance(runs, list) or len(runs) > KEPT:
        raise top.refuse("runs", f"expected a list of at most {KEPT}")
    each = {f"runs[{index}]": run for index, run in enumerate(runs)}
    return [_run(Section(each, "", FILE).section(key)) for key in each]


def _run(run: Section) -> Run:
    model = run.values.get("model")
    if not isinstance(model, str) or len(model) > MOST_TEXT:
        raise run.refuse("model", f"expected a text of at most {MOST_TEXT} characters")
    return Run(
        model=model,
        prompt_tokens=run.integer("prompt_tokens", 0, 1 << 40),
        decode_steps=run.integer("decode_steps", 0, 1 << 40),
        measured=_side(run.section("measured")),
        predicted=_side(run.section("predicted")),
    )


def _side(side: Section) -> Side:
    def speed(key: str) -> float | None:
        return side.real(key, 0.0, 1e9) if side.has(key) else None

    return Side(
        decode_tok_s=speed("decode_tok_s"),
        prefill_tok_s=speed("prefill_tok_s"),
        decode_s=_numbers(side, "decode_s", 1e6),
        prefill_s=_numbers(side, "prefill_s", 1e6),
        hits=_numbers(side, "hits", 1.0),
        rates=_numbers(side, "rates", 1e9),
    )


def _numbers(side: Section, key: str, most: float) -> dict[str, float]:
    if not side.has(key):
        return {}
    part = side.section(key)
    if len(part.values) > MOST_PARTS:
        raise side.refuse(key, f"expected at most {MOST_PARTS} numbers")
    return {str(name): part.real(name, 0.0, most) for name in part.values}
