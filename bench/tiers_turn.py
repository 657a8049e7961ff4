"""One turn of bench/tiers.py: decode from our cache, or from the mapped file.

After each token the disk and the memory are timed at what the token has just asked of them, so
that a disk whose rate moves by the second is held against itself.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tiers_mapped import limited, mapped_tiers

import hybrid
from hybrid.cache.counters import FILE
from hybrid.cache.file_source import FileSource
from hybrid.cache.record_file import DEFAULT_NAME
from hybrid.cache.source import PAGE, slot_bytes
from hybrid.cpu_experts.record import RecordShape
from hybrid.vision.prompt import Prompt

SHAPE = RecordShape(7168, 2048)
PROMPT = list(range(300, 332))
AT_ONCE = 8  # the most that a layer of one token can miss


def turn(model_dir: Path, args: argparse.Namespace) -> dict[str, object]:
    """Milliseconds a token in the experts, with the tokens and what explains them."""
    slots = args.layers * args.experts * args.share // 100
    if args.turn == "ours":
        with load(model_dir, slots * slot_bytes(SHAPE.nbytes), args) as engine:
            return ours(engine, model_dir, args)
    with load(model_dir, 0, args) as engine, limited(slots * slot_bytes(SHAPE.nbytes)):
        model = engine._timeline.model
        model.experts.close()
        model.experts = mapped_tiers(model_dir, model.experts, slots)
        tokens = list(walk(engine, args, args.warm_up))
        began = model.spent.experts_s
        tokens += walk(engine, args, args.tokens, tokens)
        seconds = model.spent.experts_s - began
    return {"tokens": tokens, "experts_ms": 1e3 * seconds / args.tokens}


def load(model_dir: Path, ram_budget: int, args: argparse.Namespace) -> hybrid.Engine:
    return hybrid.load(
        model_dir,
        device="cpu",
        threads=args.threads,
        activation="int8",
        kv_tokens=4096,
        ram_budget=ram_budget,
        prefetch=not args.no_prefetch,
        warm_start=False,  # every turn begins alike
    )


def ours(engine: hybrid.Engine, model_dir: Path, args: argparse.Namespace) -> dict[str, object]:
    """Decode and a prompt from the cache, and what disk and memory allowed meanwhile."""
    tokens = list(walk(engine, args, args.warm_up))
    watch, disk = Watch(engine), Disk(model_dir, args.share)
    disk_s = memory_s = allowed_s = 0.0
    for token in walk(engine, args, args.tokens, tokens):
        tokens.append(token)
        memory = expert_seconds(engine)
        for misses, used in watch.taken():
            reading = disk.seconds(misses)
            disk_s += reading
            memory_s += used * memory
            allowed_s += max(reading, used * memory)
    row = watch.row(args.tokens)
    misses = row["misses"]
    return {
        "tokens": tokens,
        "hit": 1 - misses / row["uses"],
        "allowed_ms": 1e3 * allowed_s / args.tokens,
        "of_allowed": 1e3 * allowed_s / args.tokens / row["experts_ms"],
        "memory_ms": 1e3 * memory_s / args.tokens,
        "disk_ms": 1e3 * disk_s / args.tokens,
        "disk_gb_s": misses * SHAPE.nbytes / 1e9 / disk_s if misses else 0.0,
        **row,
        **prefill(engine, args),
    }


def walk(
    engine: hybrid.Engine, args: argparse.Namespace, count: int, before: Sequence[int] = ()
) -> Iterator[int]:
    """`count` steps; the tokens that the model likes best, or fed with random ones."""
    timeline = engine._timeline
    if not before:
        before = [int(engine.logits(PROMPT)[-1].argmax())]
    dice = np.random.default_rng(len(before))
    token = before[-1]
    for _ in range(count):
        fed = token if args.walk == "greedy" else int(dice.integers(40, 700))
        token = int(timeline.step(fed).argmax())
        yield token


class Watch:
    """Misses and uses of every layer-step, and the seconds in the experts."""

    def __init__(self, engine: hybrid.Engine) -> None:
        self._model = engine._timeline.model
        self._tiers = self._model.experts
        self._steps: list[tuple[int, int]] = []
        real, uses = self._tiers.start, self._tiers.counters.uses

        def noted(layer: int, *step: object) -> object:
            before = uses[layer].copy()
            begun = real(layer, *step)
            grown = uses[layer] - before
            self._steps.append((int(grown[FILE]), int(grown.sum())))
            return begun

        self._tiers.start = noted
        self._seconds = self._model.spent.experts_s
        self._before = self._tiers.stats()

    def taken(self) -> list[tuple[int, int]]:
        """Misses and uses of the layers since it was last asked."""
        steps, self._steps = self._steps, []
        return steps

    def row(self, tokens: int) -> dict[str, float]:
        now, before = self._tiers.stats(), self._before
        nvme, old = now["nvme"], before["nvme"]
        uses = sum(now[t]["expert_reads"] - before[t]["expert_reads"] for t in ("ram", "nvme"))
        return {
            "experts_ms": 1e3 * (self._model.spent.experts_s - self._seconds) / tokens,
            "uses": uses,
            "misses": nvme["expert_reads"] - old["expert_reads"],
            "reads": nvme["reads"] - old["reads"],
            "stalled_ms": 1e3 * (nvme["stalled_s"] - old["stalled_s"]) / tokens,
            "predicted": nvme["prefetch"]["reads"] - old["prefetch"]["reads"],
            "foreseen": nvme["prefetch"]["used"] - old["prefetch"]["used"],
        }


class Disk:
    """Random records of the same file, read past the page cache, checksums included."""

    def __init__(self, model_dir: Path, seed: int) -> None:
        self._source = FileSource(model_dir / DEFAULT_NAME)
        self._dice = np.random.default_rng(seed)
        memory = np.ones((AT_ONCE, self._source.contents.stride + PAGE), np.uint8)
        self._targets = [row[-row.ctypes.data % PAGE :] for row in memory]
        self._pool = ThreadPoolExecutor(AT_ONCE)

    def seconds(self, count: int) -> float:
        """What so many take that are asked at once."""
        contents = self._source.contents
        asked = [
            contents.place(int(at)) for at in self._dice.integers(contents.records, size=count)
        ]
        began = time.perf_counter()
        reads = [
            self._pool.submit(self._source.read, *at, target[: contents.stride])
            for at, target in zip(asked, self._targets, strict=False)
        ]
        for read in reads:
            read.result()
        return time.perf_counter() - began if count else 0.0


def expert_seconds(engine: hybrid.Engine) -> float:
    """What an expert in RAM takes now, at one token and eight experts."""
    tiers = engine._timeline.model.experts
    own = next(own for own in tiers.maps if own is not None)
    here = np.random.default_rng().permutation(np.flatnonzero(own.ram >= 0))[:8]
    if len(here) < 8:
        return 0.0
    x = np.random.default_rng(0).standard_normal((1, SHAPE.hidden)).astype(np.float32)
    weights = np.ones((1, 8), np.float32)
    began = time.perf_counter()
    tiers.layers[own.layer].forward(x, here[None].astype(np.int32), weights)
    return (time.perf_counter() - began) / 8


def prefill(engine: hybrid.Engine, args: argparse.Namespace) -> dict[str, float]:
    """A prompt of random tokens in one pass: seconds in the experts, and those read for it."""
    model, ids = engine._timeline.model, np.random.default_rng(9).integers(40, 700, args.prefill)
    began, before = model.spent.experts_s, model.experts.counters.by_tier()["nvme"]
    engine._timeline.prefill(Prompt(ids.tolist()))
    seconds = model.spent.experts_s - began
    read = model.experts.counters.by_tier()["nvme"] - before
    return {"prefill_s": seconds, "prefill_read": read}
