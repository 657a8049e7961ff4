"""Why answers are slower than the plan said: which phase, which part, which link.

A gap counts if the median of the recorded answers has it: one slow answer is nobody's fault.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hybrid.last_run import Run, Side, parse
from hybrid.model_files import shown

GAP = 0.25  # of the predicted time, from which on a difference is explained
FEWEST_STEPS = 8  # of an answer that says something about decoding
FEWEST_TOKENS = 32  # of a prompt that says something about prefill
MORE_MISSES = 0.05  # share of picks beyond the prediction that counts as another routing
# a plan splits finer than the forward pass is timed
PART_OF = {
    "cache": "attention", "experts_file": "experts", "experts_device": "experts",
    "step": "hand-offs", "sync": "hand-offs", "link": "hand-offs",
}  # fmt: skip
BUSY = "another process takes the cores or the memory; `kimi-local doctor --deep` measures both"
ADVICE = {
    "attention": "it grows with the context; else " + BUSY,
    "hand-offs": "threads are woken late: leave a core free, or lower --threads",
}
LINKS = {
    "disk_gb_s": ("the disk", "is it shared, full or hot?"),
    "experts_gb_s": ("RAM", BUSY),
}


def explain(last: Mapping[str, Any]) -> list[str]:
    """Lines on how the last answers compare with the plan, and where a gap comes from.

    A gap counts if the median of the answers so far has it; raises ConfigError for another format.
    """
    runs = parse(last)
    if not runs:
        return ["no answer has been recorded yet"]
    mine = [run for run in runs if run.model == runs[-1].model]
    return [shown(runs[-1].model).strip("'"), *_decode(mine), *_prefill(mine)]


def _decode(runs: Sequence[Run]) -> Iterator[str]:
    telling = [run for run in runs if run.decode_steps >= FEWEST_STEPS]
    gap, line = _compared("decode", telling, lambda side: side.decode_tok_s)
    yield line
    if gap is not None and gap > GAP:
        yield from _slow_part(telling, lambda side: side.decode_s)
    elif gap is not None and gap < -GAP:
        yield "  faster than planned: `kimi-local doctor --deep` measures the machine anew"


def _prefill(runs: Sequence[Run]) -> Iterator[str]:
    telling = [run for run in runs if run.prompt_tokens >= FEWEST_TOKENS]
    gap, line = _compared("prefill", telling, lambda side: side.prefill_tok_s)
    yield line
    if gap is not None and gap > GAP:
        yield from _slow_part(telling, lambda side: side.prefill_s)


def _compared(
    phase: str, runs: Sequence[Run], speed: Callable[[Side], float | None]
) -> tuple[float | None, str]:
    """How much more time a token took than predicted, as a share; and a line that says so."""
    pairs = [(speed(run.measured), speed(run.predicted)) for run in runs]
    known = [(found, said) for found, said in pairs if found and said]
    if not known:
        return None, f"{phase}: nothing to compare yet"
    found, said = known[-1]
    gap = statistics.median(said / found - 1 for found, said in known)
    told = f"{phase}: {found:,.2f} tok/s, planned {said:,.2f}; "
    count = "the last answer" if len(known) == 1 else f"the median of {len(known)} answers"
    if abs(gap) <= GAP:
        return gap, f"{told}{count} is within {GAP:.0%} of the plan"
    word = "more" if gap > 0 else "less"
    return gap, f"{told}{count} took {abs(gap):.0%} {word} time than planned"


def _slow_part(runs: Sequence[Run], of: Callable[[Side], Mapping[str, float]]) -> Iterator[str]:
    """The part of a token that is furthest behind its plan, and what it waited for."""
    found = _median_parts([of(run.measured) for run in runs])
    said = _median_parts([of(run.predicted) for run in runs])
    late = {part: seconds - said.get(part, 0.0) for part, seconds in found.items()}
    if not late or not said:
        return
    part = max(late, key=lambda name: late[name])
    yield (
        f"  {part}: {1e3 * found[part]:,.1f} ms a token, planned {1e3 * said.get(part, 0.0):,.1f}"
    )
    if part == "experts":
        yield from _link(runs)
    else:
        yield f"  {ADVICE.get(part, BUSY)}"


def _link(runs: Sequence[Run]) -> Iterator[str]:
    """Why experts are late: more of them from the file, a slow disk, or slow memory."""
    last = runs[-1]
    missed = _median(runs, lambda run: run.measured.hits.get("nvme")) or 0.0
    planned = last.predicted.hits.get("nvme", 0.0)
    if missed > planned + MORE_MISSES:
        yield (
            f"  {missed:.0%} of the experts came from the file, planned {planned:.0%}: "
            "these prompts are less alike than assumed; a larger ram_budget helps"
        )
    slow = [line for name in ("disk_gb_s", "experts_gb_s") if (line := _slow_link(runs, name))]
    yield from slow
    if not slow and missed <= planned + MORE_MISSES:
        yield f"  {BUSY}"


def _slow_link(runs: Sequence[Run], rate: str) -> str | None:
    found = _median(runs, lambda run: run.measured.rates.get(rate))
    said = runs[-1].predicted.rates.get(rate)
    if not found or not said or said / found - 1 <= GAP:
        return None
    name, advice = LINKS[rate]
    return f"  {name} gave {found:,.1f} GB/s of experts, planned {said:,.1f}: {advice}"


def _median_parts(sides: Sequence[Mapping[str, float]]) -> dict[str, float]:
    each = [_parts(seconds) for seconds in sides]
    names = dict.fromkeys(name for parts in each for name in parts)
    return {name: statistics.median(parts.get(name, 0.0) for parts in each) for name in names}


def _median(runs: Sequence[Run], value: Callable[[Run], float | None]) -> float | None:
    known = [found for run in runs if (found := value(run)) is not None]
    return statistics.median(known) if known else None


def _parts(seconds: Mapping[str, float]) -> dict[str, float]:
    """The seconds by the parts that both sides know."""
    found: dict[str, float] = {}
    for name, each in seconds.items():
        part = PART_OF.get(name, name)
        found[part] = found.get(part, 0.0) + each
    return found
