"""Decode with experts that do not fit into RAM, on this machine's own disk.

    python bench/tiers.py DIR [--layers 2] [--experts 384] [--shares 100,50,25] [--keep]

Makes a checkpoint of random experts of K2.5's true size in DIR and prepares it, unless they are
there already, and decodes with RAM for 100, 50 and 25 % of the experts. Each share is compared with

  disk     what this disk takes for 1, 2, 4, 8 whole records asked at once, before and after
  allowed  the time that the disk takes for the step's misses, or memory for its experts,
           whichever is longer, layer by layer: what no order of reads could beat without a guess
  mmap     the same engine with the record file mapped and the page cache held to the same
           memory by a control group (needs the right to make one; else it is left out)

All give the same tokens, which is checked. Prints a table and, last, one JSON line.
"""

import argparse
import gc
import json
import mmap
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from environment import environment
from noise import cores_of_others, usage

import hybrid
from hybrid.cache.counters import FILE
from hybrid.cache.file_source import FileSource
from hybrid.cache.prepare import prepare
from hybrid.cache.record_file import DEFAULT_NAME, RecordFile
from hybrid.cache.source import PAGE, slot_bytes
from hybrid.cache.tiers import Tiers
from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.record import RecordShape
from hybrid.tiny import TinyShape, write_tiny
from hybrid.vision.prompt import Prompt

SHAPE = RecordShape(7168, 2048)
GROUPS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
WARM_UP = 16
PROMPT = list(range(300, 332))
BATCHES = (1, 2, 4, 8)  # records asked at once
DISK_ROUNDS = 9
WILLNEED = os.POSIX_FADV_WILLNEED


def main() -> None:
    """Measure, print, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--experts", type=int, default=384)
    parser.add_argument("--shares", default="100,50,25", help="RAM as per cent of the experts")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--prefill", type=int, default=1024, help="tokens of a prompt")
    parser.add_argument("--walk", choices=["greedy", "random"], default="random")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--no-mmap", action="store_true", help="leave out the page cache's turn")
    parser.add_argument("--no-prefetch", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoint in DIR")
    parser.add_argument("--mapped", type=int, help=argparse.SUPPRESS)  # the child's share of RAM
    args = parser.parse_args()
    model_dir = args.directory / "tiers-bench"
    if args.mapped is not None:
        print(json.dumps(mapped_run(model_dir, args)))
        return
    make(model_dir, args)
    print_head()
    rows = [run(model_dir, int(share), args) for share in args.shares.split(",")]
    line = {"bench": "tiers", "records": args.layers * args.experts, "rows": rows}
    print(json.dumps(line | {"tokens": args.tokens, "environment": environment()}))
    if not args.keep:
        for file in model_dir.iterdir():
            file.unlink()
        model_dir.rmdir()


def make(model_dir: Path, args: argparse.Namespace) -> None:
    """Write and prepare the checkpoint, if there is room for both."""
    total = args.layers * args.experts * SHAPE.nbytes
    missing = total * (not (model_dir / "config.json").exists())
    missing += total * (not (model_dir / DEFAULT_NAME).exists())
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    state = os.statvfs(model_dir.parent)
    free = state.f_bavail * state.f_frsize
    if missing * 1.02 > free:
        sys.exit(f"needs {missing / 1e9:.1f} GB in {model_dir.parent}; {free / 1e9:.1f} are free")
    if not (model_dir / "config.json").exists():
        shape = TinyShape(
            hidden_size=SHAPE.hidden,
            moe_intermediate_size=SHAPE.intermediate,
            intermediate_size=SHAPE.intermediate,
            n_routed_experts=args.experts,
            num_experts_per_tok=8,
            num_hidden_layers=args.layers + 1,
        )
        write_tiny(model_dir, shape, vision=False)
    if not (model_dir / DEFAULT_NAME).exists():
        prepare(model_dir, verify=False)


def load(model_dir: Path, ram_budget: int, args: argparse.Namespace) -> hybrid.Engine:
    return hybrid.load(
        model_dir,
        device="cpu",
        threads=args.threads,
        activation="int8",
        kv_tokens=4096,
        ram_budget=ram_budget,
        prefetch=not args.no_prefetch,
        warm_start=False,  # every share begins alike
    )


def run(model_dir: Path, share: int, args: argparse.Namespace) -> dict[str, object]:
    """One share of RAM: ours, the disk before and after, and the mapped file."""
    began = usage()
    total = args.layers * args.experts
    disk = [disk_seconds(model_dir, seed=share)]
    ram = total * share // 100
    with load(model_dir, ram * slot_bytes(SHAPE.nbytes), args) as engine:
        watch = Watch(engine)
        tokens = decode(engine, args, WARM_UP)
        watch.start()
        tokens += decode(engine, args, args.tokens, tokens)
        row = watch.row(args.tokens)
        memory_s = compute_seconds(engine)
        hits = {"ram_slots": ram, "hit": 1 - row["misses"] / row["uses"]}
        steps = list(watch.steps)
        row |= prefill(engine, args)
    del engine, watch  # the records' memory is the mapped file's now
    gc.collect()
    disk.append(disk_seconds(model_dir, seed=share + 1))
    mean = {count: (disk[0][count] + disk[1][count]) / 2 for count in BATCHES}
    gb_s = {count: count * SHAPE.nbytes / 1e9 / seconds for count, seconds in mean.items()}
    row |= hits | {"share": share, "disk_gb_s": gb_s}
    seconds = np.interp(range(9), [0, *BATCHES], [0.0, *mean.values()])
    allowed = sum(max(seconds[m], used * memory_s) for m, used in steps) / args.tokens
    row["allowed_ms"] = 1e3 * allowed
    row["of_allowed"] = row["allowed_ms"] / row["experts_ms"]
    if not args.no_mmap:
        child = mapped_child(share, args)
        if child is not None:
            assert child["tokens"] == tokens, "the mapped file gives other tokens"
            row["mmap_ms"] = child["experts_ms"]
            row["against_mmap"] = child["experts_ms"] / row["experts_ms"]
    row |= cores_of_others(began, usage())
    print_row(row)
    return row


def decode(
    engine: hybrid.Engine, args: argparse.Namespace, count: int, before: Sequence[int] = ()
) -> list[int]:
    """`count` steps; the tokens that the model likes best, or fed with random ones."""
    timeline = engine._timeline
    if not before:
        before = [int(engine.logits(PROMPT)[-1].argmax())]
    dice = np.random.default_rng(len(before))
    tokens, token = [], before[-1]
    for _ in range(count):
        fed = token if args.walk == "greedy" else int(dice.integers(40, 700))
        token = int(timeline.step(fed).argmax())
        tokens.append(token)
    return tokens


class Watch:
    """Misses and uses of every layer-step, and the seconds in the experts."""

    def __init__(self, engine: hybrid.Engine) -> None:
        self._model = engine._timeline.model
        self._tiers = self._model.experts
        self.steps: list[tuple[int, int]] = []

    def start(self) -> None:
        real, uses = self._tiers.start, self._tiers.counters.uses

        def noted(layer: int, *step: object) -> object:
            before = uses[layer].copy()
            begun = real(layer, *step)
            grown = uses[layer] - before
            self.steps.append((int(grown[FILE]), int(grown.sum())))
            return begun

        self._tiers.start = noted
        self._seconds = self._model.spent.experts_s
        self._before = self._tiers.stats()

    def row(self, tokens: int) -> dict[str, float]:
        now, before = self._tiers.stats(), self._before
        nvme, old = now["nvme"], before["nvme"]
        uses = sum(now[t]["expert_reads"] - before[t]["expert_reads"] for t in ("ram", "nvme"))
        misses = nvme["expert_reads"] - old["expert_reads"]
        return {
            "experts_ms": 1e3 * (self._model.spent.experts_s - self._seconds) / tokens,
            "uses": uses,
            "misses": misses,
            "reads": nvme["reads"] - old["reads"],
            "stalled_ms": 1e3 * (nvme["stalled_s"] - old["stalled_s"]) / tokens,
            "predicted": nvme["prefetch"]["reads"] - old["prefetch"]["reads"],
            "foreseen": nvme["prefetch"]["used"] - old["prefetch"]["used"],
        }


def prefill(engine: hybrid.Engine, args: argparse.Namespace) -> dict[str, float]:
    """A prompt of random tokens in one pass: seconds in the experts, and those read for it."""
    model, ids = engine._timeline.model, np.random.default_rng(9).integers(40, 700, args.prefill)
    began, before = model.spent.experts_s, model.experts.counters.by_tier()["nvme"]
    engine._timeline.prefill(Prompt(ids.tolist()))
    seconds = model.spent.experts_s - began
    read = model.experts.counters.by_tier()["nvme"] - before
    return {"prefill_s": seconds, "prefill_read": read}


def compute_seconds(engine: hybrid.Engine) -> float:
    """Seconds that one expert takes in RAM, at one token and eight experts."""
    tiers = engine._timeline.model.experts
    own = next(own for own in tiers.maps if own is not None)
    here = np.flatnonzero(own.ram >= 0)[:64].astype(np.int32)
    layer = tiers.layers[own.layer]
    x = np.random.default_rng(0).standard_normal((1, SHAPE.hidden)).astype(np.float32)
    weights = np.ones((1, 8), np.float32)
    times = []
    for at in range(0, len(here) // 8 * 8, 8):
        began = time.perf_counter()
        layer.forward(x, here[None, at : at + 8], weights)
        times.append((time.perf_counter() - began) / 8)
    return float(np.median(times)) if times else 0.0


def disk_seconds(model_dir: Path, seed: int) -> dict[int, float]:
    """Median seconds for so many random records asked at once, checksums included."""
    source = FileSource(model_dir / DEFAULT_NAME)
    contents = source.contents
    memory = np.zeros((max(BATCHES), contents.stride + PAGE), np.uint8)
    targets = [row[-row.ctypes.data % PAGE :][: contents.stride] for row in memory]
    places = iter(np.random.default_rng(seed).permutation(contents.records).tolist())
    seconds: dict[int, list[float]] = {count: [] for count in BATCHES}
    with ThreadPoolExecutor(max(BATCHES)) as pool:
        for _ in range(DISK_ROUNDS):
            for count in BATCHES:
                asked = [contents.place(next(places)) for _ in range(count)]
                began = time.perf_counter()
                reads = [pool.submit(source.read, *at, targets[i]) for i, at in enumerate(asked)]
                for read in reads:
                    read.result()
                seconds[count].append(time.perf_counter() - began)
    source.close()
    return {count: statistics.median(times) for count, times in seconds.items()}


def mapped_child(share: int, args: argparse.Namespace) -> dict | None:
    """The mapped file's turn, in a process of its own."""
    command = [sys.executable, __file__, str(args.directory), "--mapped", str(share)]
    for name in ("layers", "experts", "tokens", "walk"):
        command += [f"--{name}", str(getattr(args, name))]
    if args.threads:
        command += ["--threads", str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"mmap left out: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def mapped_run(model_dir: Path, args: argparse.Namespace) -> dict[str, object]:
    """Decode from the mapped file with the page cache held to a share of its size."""
    with load(model_dir, 0, args) as engine:
        model = engine._timeline.model
        slots = args.layers * args.experts * args.mapped // 100
        with limited(slots * slot_bytes(SHAPE.nbytes)):
            model.experts.close()
            model.experts = mapped_tiers(model_dir, model.experts, slots)
            tokens = decode(engine, args, WARM_UP)
            began = model.spent.experts_s
            tokens += decode(engine, args, args.tokens, tokens)
            seconds = model.spent.experts_s - began
    return {"tokens": tokens, "experts_ms": 1e3 * seconds / args.tokens}


def mapped_tiers(model_dir: Path, old: Tiers, warm: int) -> Tiers:
    """The same layers over a private mapping of the record file, some of it in the page cache."""
    path = model_dir / DEFAULT_NAME
    contents = RecordFile.open(path).contents
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # left by the last turn
        for at in range(warm):  # as ours begins
            os.posix_fadvise(file.fileno(), contents.offset(at), contents.stride, WILLNEED)
            os.pread(file.fileno(), contents.stride, contents.offset(at))
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    layers: list[ExpertLayer | None] = []
    for at, own in enumerate(old.maps):
        if own is None:
            layers.append(None)
            continue
        first = contents.offset(contents.index(at, 0))
        records = np.frombuffer(pages, np.uint8, own.experts * SHAPE.nbytes, first)
        before = old.layers[at]
        layer = ExpertLayer(
            own.experts,
            SHAPE.hidden,
            SHAPE.intermediate,
            before.isa,
            before.threads,
            before.activation,
            records=records.reshape(own.experts, SHAPE.nbytes),
        )
        layer.where[:] = np.arange(own.experts)
        layers.append(layer)
    return Tiers(layers, old.maps, old.slots, old.counters)


@contextmanager
def limited(page_cache: int) -> Iterator[None]:
    """Hold this process to what it has now and `page_cache` bytes more."""
    used = 1 << 30  # what is resident now is charged to the old group; this leaves room to grow
    for root, limit in zip(GROUPS, ("memory.limit_in_bytes", "memory.max"), strict=True):
        group = root / f"kimi-local-bench-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if not (group / limit).exists():
            group.rmdir()
            continue
        (group / limit).write_text(str(page_cache + used // 8))
        (group / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (root / "cgroup.procs").write_text(str(os.getpid()))
            group.rmdir()
        return
    sys.exit("no control group can be made here")


def print_head() -> None:
    print(
        f"{'RAM':>5} {'hit':>6} {'misses':>7} {'experts':>9} {'allowed':>9} {'of it':>6} "
        f"{'disk':>10} {'foreseen':>9} {'prefill, read':>15} {'mmap':>9} {'ratio':>6}"
    )


def print_row(row: dict) -> None:
    foreseen = f"{row['foreseen']}/{row['predicted']}"
    mapped = f"{row['mmap_ms']:6.0f} ms {row['against_mmap']:6.2f}" if "mmap_ms" in row else ""
    print(
        f"{row['share']:>4}% {row['hit']:6.3f} {row['misses']:7} {row['experts_ms']:6.1f} ms "
        f"{row['allowed_ms']:6.1f} ms {row['of_allowed']:6.2f} "
        f"{row['disk_gb_s'][1]:5.2f} GB/s {foreseen:>9} "
        f"{row['prefill_s']:7.2f} s {row['prefill_read']:5} {mapped}",
        flush=True,
    )


if __name__ == "__main__":
    main()
