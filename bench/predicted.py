"""Predicted against measured: synthetic models on this machine, decode and prefill.

    python bench/predicted.py DIR [--only NAME,...] [--generated 32] [--prompt 256] [--threads N]

Each model differs from the first in one thing: layers, experts, hidden size, the share that RAM
holds. It is written to DIR, timed and removed again; no two are there at once, 4 GB at most. The
machine is calibrated for its sizes before and after each row and planned with the means, since a
shared memory and disk move by a third within minutes. Prints a table and, last, one JSON line. The
target is 15 %.

Random models have favourites of their own, so where a file holds some experts a trace of other
tokens is replayed first: "hits" are those of the replay, then as measured; "at hits" is the error
had the plan known these. "others" are the cores that other programs used meanwhile; above a few
hundredths they spoil a row.
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from environment import environment

import hybrid
from hybrid.benchmark import Asked, Case, Run, all_cases, predictor, rows, to_json
from hybrid.benchmark.prediction import Predicted
from hybrid.benchmark.sample import take
from hybrid.cache.capacity import capacity
from hybrid.cache.policy import DEFAULT
from hybrid.cache.prepare import prepare
from hybrid.cache.simulate import replay_ram
from hybrid.cache.source import slot_bytes
from hybrid.cache.trace_file import Trace
from hybrid.calibration import calibrate
from hybrid.config import ModelConfig
from hybrid.cpu_experts.record import RecordShape
from hybrid.hardware import Hardware, Rates, probe
from hybrid.hardware.model_sizes import ModelSizes
from hybrid.tiny import TinyShape, write_tiny

TARGET = 0.15
HEAD = f"{'model':26} test     predicted   measured   error      hits  at hits  others"
TRACED = 384  # tokens; the second half counts, when the policy knows the model
CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class Synthetic:
    """A model whose weights leave the caches, and how much of it RAM may hold."""

    name: str
    layers: int = 7  # with experts; one dense one comes first
    experts: int = 64
    hidden: int = 2048
    intermediate: int = 1024
    ram_share: float = 1.0

    @property
    def shape(self) -> TinyShape:
        return TinyShape(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers + 1,
            num_attention_heads=16,
            q_lora_rank=768,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            intermediate_size=4 * self.hidden,
            moe_intermediate_size=self.intermediate,
            n_routed_experts=self.experts,
            num_experts_per_tok=8,
        )

    @property
    def ram_budget(self) -> int | None:
        """Bytes of RAM for the experts, None for all of them."""
        if self.ram_share == 1:
            return None
        return int(self.ram_share * self.layers * self.experts) * self.slot_bytes

    @property
    def slot_bytes(self) -> int:
        return slot_bytes(RecordShape(self.hidden, self.intermediate).nbytes)


MODELS = (
    Synthetic("first"),
    Synthetic("more layers", layers=14, experts=32),
    Synthetic("few layers with many experts", layers=3, experts=144),
    Synthetic("wide", layers=4, experts=32, hidden=4096),
    Synthetic("narrow", layers=12, experts=96, hidden=1024, intermediate=768),
    Synthetic("half in RAM", ram_share=0.5),
    Synthetic("a quarter in RAM", layers=4, ram_share=0.25),
)


def main() -> None:
    """Time each model, print the table, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", help="names of models, by commas")
    parser.add_argument("--generated", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    known = [model.name for model in MODELS]
    names = args.only.split(",") if args.only else known
    if unknown := set(names) - set(known):
        parser.error(f"--only {min(unknown)!r}: choose of {', '.join(known)}")
    found = []
    print(HEAD)
    for model in MODELS:
        if model.name in names:
            for row in measure(model, args):
                found.append(row)
                print(line(row), flush=True)
    errors = [abs(row["error"]) for row in found]
    report = {
        "bench": "predicted",
        "rows": found,
        "target": TARGET,
        "met": sum(error <= TARGET for error in errors),
        "of": len(errors),
        "median_error": statistics.median(errors) if errors else None,
        "environment": environment(),
    }
    print(json.dumps(report))


def measure(model: Synthetic, args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """The rows of one model, with its plan's numbers."""
    model_dir = args.directory / "predicted-bench"
    write_tiny(model_dir, model.shape, vision=False)
    try:
        if model.ram_budget is not None:
            prepare(model_dir, verify=False)
        hits = replayed(model_dir, model, args)
        around = Around(model_dir, args, hits)
        run = Run(
            repetitions=args.repetitions,
            asked=around.asked,
            begin=around.begin,
            predict=around.predict,
            peaks=lambda: around.machine.rates,
        )
        cases = all_cases([args.prompt], [args.generated], [0], ["rotating"])
        for row in rows(cases, lambda: opened(model_dir, model, args), run):
            rates = around.machine.to_json()["rates"]
            yield {"model": model.name, "rates": rates, "replayed": hits, **to_json(row)}
    finally:
        shutil.rmtree(model_dir, ignore_errors=True)


class Around:
    """Calibrates before and after a case, and predicts it with the means."""

    def __init__(
        self, model_dir: Path, args: argparse.Namespace, hits: dict[str, float] | None
    ) -> None:
        self.asked = Asked()
        self._model_dir, self._threads, self._hits = model_dir, args.threads, hits
        self._sizes = ModelSizes.of(ModelConfig.from_dir(model_dir).text)
        self.machine = Hardware()  # until a case begins

    def begin(self, _engine: hybrid.Engine, _case: Case) -> None:
        self.machine = self._calibrated()

    def predict(
        self, engine: hybrid.Engine, case: Case, shares: dict[str, float]
    ) -> Predicted | None:
        rates = mean(self.machine.rates, self._calibrated().rates)
        self.machine = replace(self.machine, rates=rates)
        return predictor(self.machine, self.asked, self._hits)(engine, case, shares)

    def _calibrated(self) -> Hardware:
        how = {"threads": self._threads, "activation": "int8"}
        calibrate(self._sizes, model_dir=self._model_dir, **how)
        return probe(self._model_dir, sizes=self._sizes, **how)


def mean(one: Rates, other: Rates) -> Rates:
    """Each rate that both have, halfway between."""
    pairs = {
        field.name: (getattr(one, field.name), getattr(other, field.name))
        for field in fields(Rates)
        if field.name != "measured"
    }
    both = {name: pair for name, pair in pairs.items() if None not in pair}
    return replace(one, **{name: sum(pair) / 2 for name, pair in both.items()})


def replayed(
    model_dir: Path, model: Synthetic, args: argparse.Namespace
) -> dict[str, float] | None:
    """Shares of the picks by tier, as the policy would serve them; None with all in RAM."""
    if model.ram_budget is None:
        return None
    picks: list[np.ndarray] = []
    case = Case(kind="warm", generated=TRACED)
    with opened(model_dir, model, args) as engine:
        text = engine.config.text
        with engine.record(lambda _layer, _start, ids, *_: picks.append(ids.copy())):
            take(engine, case, 0, Asked(), lambda: None)
    shape = TRACED, text.moe_layers, text.num_experts_per_tok
    trace = Trace(np.array(picks).reshape(shape), np.zeros(TRACED, np.bool_), model.experts)
    slots = capacity(model.layers * model.experts, model.slot_bytes, 0, model.ram_budget)
    share = replay_ram(trace, DEFAULT, slots.resident // model.layers).warm_hit_rate
    return {"vram": 0.0, "ram": share, "nvme": 1 - share}


@contextmanager
def opened(model_dir: Path, model: Synthetic, args: argparse.Namespace) -> Iterator[hybrid.Engine]:
    engine = hybrid.load(
        model_dir,
        device="cpu",
        threads=args.threads,
        activation="int8",
        kv_tokens=CONTEXT,
        ram_budget=model.ram_budget,
        warm_start=False,  # every run begins alike
    )
    try:
        yield engine
    finally:
        engine.close()


def line(row: dict[str, object]) -> str:
    hits = f"{1 - row['tiers']['nvme']['share']:.0%}"
    if row["n_gen"] and row["replayed"]:
        hits = f"{row['replayed']['ram']:.0%} {hits}"
    known = row["predicted_at_hits_ts"]
    error = f"{row['median_ts'] / known - 1:+8.1%}" if known else " " * 8
    return (
        f"{row['model']:26} {row['test']:7} {row['predicted_ts']:10.2f} {row['median_ts']:10.2f} "
        f"{row['error']:+7.1%} {hits:>9} {error} {row['others_cores']:7.2f}"
    )


if __name__ == "__main__":
    main()
