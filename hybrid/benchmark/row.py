"""Samples of one case as a row: tokens per second, and what the tiers did for it.

Names are llama-bench's where it has them (n_prompt, avg_ts, stddev_ts, samples_ns); the rest:

    median_ts            the headline of rotating prompts
    predicted_ts         what the plan said, and `error` = measured / predicted - 1;
                         predicted_at_hits_ts, had it known how often experts are in memory
    seconds_per_token    by part of the model, as `engine.stats()` names them
    predicted_seconds    the same of a token as the plan said it, by its own names
    tiers                share of uses, bytes per token, GB/s beside the calibrated peak
    output_hash          of the greedy token ids of all repetitions (behind a prompt: the likeliest
                         ones); sample_hashes of each

RAM's GB/s counts every record that the CPU computed, over the time in the experts less the waits
for the disk; that of the disk counts what was read, over the time in which it was reading; that of
VRAM what was copied there, over the whole time.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybrid.benchmark.cases import Case, combined_hash
from hybrid.benchmark.prediction import Predicted
from hybrid.benchmark.sample import TIERS, Sample, passes, shares
from hybrid.hardware import Rates


@dataclass(frozen=True, slots=True)
class Row:
    """A case and its repetitions, with what was predicted and what others did meanwhile."""

    case: Case
    samples: tuple[Sample, ...]
    moe_layers: int
    predicted: Predicted | None
    peaks: Rates  # of this machine, where it has been calibrated
    noise: dict[str, float]

    @property
    def rates(self) -> list[float]:
        """Tokens per second of each repetition."""
        return [self.case.tokens / sample.seconds for sample in self.samples]

    @property
    def mean(self) -> float:
        """Mean tokens per second."""
        return statistics.fmean(self.rates)

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None of a single repetition."""
        return statistics.stdev(self.rates) if len(self.samples) > 1 else None

    @property
    def median(self) -> float:
        """Median tokens per second."""
        return statistics.median(self.rates)

    def total(self, name: str) -> float:
        """A counter over all repetitions."""
        return sum(sample.counts[name] for sample in self.samples)

    def per_token(self, name: str) -> float:
        """A counter over the tokens of all repetitions."""
        return self.total(name) / (self.case.tokens * len(self.samples))

    @property
    def seconds(self) -> float:
        """Of all repetitions."""
        return sum(sample.seconds for sample in self.samples)

    @property
    def output_hash(self) -> str:
        """Of all repetitions in order."""
        return combined_hash([sample.output_hash for sample in self.samples])


def to_json(row: Row) -> dict[str, Any]:
    """The row as plain numbers; None where a figure has no meaning."""
    case, predicted = row.case, row.predicted
    steps = row.moe_layers * passes(case) * len(row.samples)
    uses = sum(row.total(f"{tier}.expert_reads") for tier in TIERS)
    return {
        "test": case.label,
        "kind": case.kind,
        "n_prompt": case.prompt,
        "n_gen": case.generated,
        "n_depth": case.depth,
        "avg_ts": _rounded(row.mean),
        "stddev_ts": _rounded(row.std),
        "median_ts": _rounded(row.median),
        "samples_ns": [sample.ns for sample in row.samples],
        "samples_ts": [_rounded(rate) for rate in row.rates],
        "predicted_ts": _rounded(predicted.tokens_per_s) if predicted else None,
        "error": _rounded(row.median / predicted.tokens_per_s - 1) if predicted else None,
        "predicted_at_hits_ts": _rounded(predicted.at_hits) if predicted else None,
        "tiers": _tiers(row),
        "distinct_experts_per_step": _rounded(uses / steps) if steps else None,
        "promotions_per_token": _rounded(row.per_token("vram.promotions")),
        "stalled_s_per_token": _rounded(row.per_token("nvme.stalled_s")),
        "seconds_per_token": _by_part(row),
        "predicted_seconds": {
            name: _rounded(value)
            for name, value in (predicted.seconds if predicted else {}).items()
        },
        "output_hash": row.output_hash,
        "sample_hashes": [sample.output_hash for sample in row.samples],
        **row.noise,
    }


def _tiers(row: Row) -> dict[str, dict[str, float | None]]:
    share = shares(row.samples)
    rates = {
        "vram": (_per_second(row.total("vram.copied_bytes"), row.seconds), row.peaks.link_gb_s),
        "ram": (_computed_gb_s(row), row.peaks.ram_gb_s),
        "nvme": (
            _per_second(row.total("nvme.read_bytes"), row.total("nvme.busy_s")),
            row.peaks.disk_gb_s,
        ),
    }
    moved = {"vram": "vram.copied_bytes", "ram": "ram.bytes", "nvme": "nvme.read_bytes"}
    return {
        tier: {
            "share": _rounded(share.get(tier)),
            "bytes_per_token": _rounded(row.per_token(moved[tier])),
            "gb_s": _rounded(rate),
            "peak_gb_s": peak,
            "of_peak": _rounded(rate / peak) if rate and peak else None,
        }
        for tier, (rate, peak) in rates.items()
    }


def _computed_gb_s(row: Row) -> float | None:
    """What the CPU's experts read of memory, while they did."""
    nbytes = row.total("ram.bytes") + row.total("nvme.bytes")
    return _per_second(nbytes, row.total("seconds.experts") - row.total("nvme.stalled_s"))


def _per_second(nbytes: float, seconds: float) -> float | None:
    return nbytes / 1e9 / seconds if nbytes and seconds > 0 else None


def _by_part(row: Row) -> dict[str, float | None]:
    parts = sorted(name for name in row.samples[0].counts if name.startswith("seconds."))
    found = {name.removeprefix("seconds."): row.per_token(name) for name in parts}
    whole = row.seconds / (row.case.tokens * len(row.samples))
    found["between"] = max(0.0, whole - sum(found.values()))
    return {name: _rounded(value) for name, value in found.items()}


def _rounded(value: float | None) -> float | None:
    """Six significant digits: more than any clock here knows."""
    return None if value is None else float(f"{value:.6g}")


def use_tiers(rows: Sequence[Row]) -> bool:
    """Whether experts are anywhere but in RAM, so that a table should say where."""
    return any(row.total(f"{tier}.expert_reads") for row in rows for tier in ("vram", "nvme"))
