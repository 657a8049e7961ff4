"""What a token costs beyond arithmetic and memory: K2.5's layers and experts, tiny matrices.

    python bench/overhead.py [--tokens 200] [--threads 2] [--profile]

A checkpoint of 61 layers and 384 experts (top-8) whose matrices are too small to matter is decoded
token by token, so that nearly all of the time is Python, calls and hand-offs. Choosing a token from
K2.5's 163,840 logits is timed apart and counts too. Prints a table and, last, one JSON line. The
target is at most 10 ms a token on two cores.
"""

import argparse
import cProfile
import json
import pstats
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import numpy as np
from environment import environment

import hybrid
from hybrid.sampling import Sampler, SamplingParams
from hybrid.tiny import K25_LAYOUT, write_tiny
from hybrid.vision.prompt import Prompt

WARM_UP = 20
VOCAB_SIZE = 163_840
TARGET_MS = 10.0


def main() -> None:
    """Measure, print, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="also print the costliest calls")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        model_dir = write_tiny(Path(directory) / "k25-layout", K25_LAYOUT)
        engine = hybrid.load(model_dir, device="cpu", threads=args.threads, kv_tokens=4096)
        times, parts = measure(engine, args.tokens)
        parts["sampling"] = sampling_ms(args.tokens)
        report(times, parts, args.threads)
        if args.profile:
            profile(engine, args.tokens)
    milliseconds = sorted(1e3 * seconds + parts["sampling"] for seconds in times)
    median = statistics.median(milliseconds)
    line = {
        "bench": "overhead",
        "ms_per_token": {"median": median, "min": milliseconds[0], "max": milliseconds[-1]},
        "target_ms": TARGET_MS,
        "met": median <= TARGET_MS,
        "ms_by_part": parts,
        "tokens": args.tokens,
        "threads": args.threads,
        "environment": environment(),
    }
    print(json.dumps(line))


def measure(engine: hybrid.Engine, tokens: int) -> tuple[list[float], dict[str, float]]:
    """Seconds of each decoded token, and mean milliseconds a token by part of the model."""
    timeline = engine._timeline
    spent = timeline.model.spent
    timeline.prefill(Prompt(list(range(8))))
    for token in range(WARM_UP):
        timeline.step(token)
    before = asdict(spent)
    times = []
    for token in range(tokens):
        began = perf_counter()
        timeline.step(token % 700)
        times.append(perf_counter() - began)
    after = asdict(spent)
    parts = {
        name.removesuffix("_s"): 1e3 * (after[name] - before[name]) / tokens
        for name in after
        if name.endswith("_s")
    }
    parts["between"] = 1e3 * sum(times) / tokens - sum(parts.values())
    return times, parts


def sampling_ms(tokens: int) -> float:
    """Median milliseconds to choose a token as the thinking mode does, from logits of spread 3."""
    logits = np.random.default_rng(0).normal(0, 3, VOCAB_SIZE).astype(np.float32)
    sampler = Sampler(SamplingParams(seed=0), [], thinking=True)
    times = []
    for _ in range(tokens):
        began = perf_counter()
        sampler(logits)
        times.append(perf_counter() - began)
    return 1e3 * statistics.median(times)


def report(times: list[float], parts: dict[str, float], threads: int) -> None:
    """Print where the time of a mean token goes."""
    total = 1e3 * sum(times) / len(times) + parts["sampling"]
    print(f"61 layers, 384 experts, top-8, hidden {K25_LAYOUT.hidden_size}; {threads} threads")
    for name, milliseconds in sorted(parts.items(), key=lambda part: -part[1]):
        print(f"  {name:10} {milliseconds:7.3f} ms  {100 * milliseconds / total:5.1f} %")
    median = 1e3 * statistics.median(times) + parts["sampling"]
    print(f"  {'mean':10} {total:7.3f} ms; median {median:.3f} ms")


def profile(engine: hybrid.Engine, tokens: int) -> None:
    """Print the costliest Python functions of decoding; the profiler itself slows it down."""
    profiler = cProfile.Profile()
    profiler.enable()
    for token in range(tokens):
        engine._timeline.step(token % 700)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(15)


if __name__ == "__main__":
    main()
