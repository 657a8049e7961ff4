"""Decode with experts that do not fit into RAM, on this machine's own disk.

    python bench/tiers.py DIR [--layers 2] [--experts 384] [--shares 100,50,25] [--keep]

Makes a checkpoint of random experts of K2.5's true size in DIR and prepares it, unless they are
there already, and decodes with RAM for 100, 50 and 25 % of the experts, by turns with

  mmap     the same engine with the record file mapped and the page cache held to the same
           memory by a control group (needs the right to make one; else it is left out)

Every turn is a process of its own and gives the same tokens, which is checked; its first tokens do
not count, since both learn from them whom to keep. After each token,
as many random records are read as its layers missed, at once for each layer, and eight experts are
computed from RAM: the disk and the memory of that moment. From these

  allowed  the time that the disk took for a layer's misses, or memory for its experts, whichever
           is longer, summed over layers: what no order of reads could beat without a guess

Prints a table, a row for each turn and one for their medians, and, last, one JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from environment import environment
from tiers_turn import SHAPE, turn

from hybrid.benchmark.noise import cores_of_others, usage
from hybrid.cache.prepare import prepare
from hybrid.cache.record_file import DEFAULT_NAME
from hybrid.tiny import TinyShape, write_tiny

PASSED_ON = ("layers", "experts", "tokens", "warm_up", "prefill", "walk")
HEAD = (
    f"{'RAM':>5} {'turn':>6} {'hit':>6} {'misses':>7} {'experts':>9} {'allowed':>9} {'of it':>6} "
    f"{'disk':>10} {'foreseen':>9} {'prefill, read':>15} {'mmap':>9} {'ratio':>6}"
)


def main() -> None:
    """Measure, print, end with one JSON line."""
    args = arguments()
    model_dir = args.directory / "tiers-bench"
    if args.turn is not None:
        print(json.dumps(turn(model_dir, args)))
        return
    make(model_dir, args)
    print(HEAD)
    shares = [int(share) for share in args.shares.split(",")]
    rows = [run(share, args) for share in shares]
    line = {"bench": "tiers", "records": args.layers * args.experts, "rows": rows}
    print(json.dumps(line | {"tokens": args.tokens, "environment": environment()}))
    if not args.keep:
        for file in model_dir.iterdir():
            file.unlink()
        model_dir.rmdir()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--experts", type=int, default=384)
    parser.add_argument("--shares", default="100,50,25", help="RAM as per cent of the experts")
    parser.add_argument("--turns", type=int, default=3, help="of ours, and of the mapped file")
    parser.add_argument("--tokens", type=int, default=48, help="in each turn")
    parser.add_argument("--warm-up", type=int, default=256, help="tokens before them")
    parser.add_argument("--prefill", type=int, default=1024, help="tokens of a prompt")
    parser.add_argument("--walk", choices=["greedy", "random"], default="random")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--no-mmap", action="store_true", help="leave out the page cache's turns")
    parser.add_argument("--no-prefetch", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoint in DIR")
    parser.add_argument("--turn", choices=["ours", "mapped"], help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


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


def run(share: int, args: argparse.Namespace) -> dict[str, object]:
    """One share of RAM: turns of ours and of the mapped file, and their medians."""
    turns = []
    for index in range(args.turns):
        began = usage()
        row = child("ours", share, args)
        assert row is not None
        mapped = None if args.no_mmap else child("mapped", share, args)
        if mapped is not None:
            assert mapped["tokens"] == row["tokens"], "the mapped file gives other tokens"
            row["mmap_ms"] = mapped["experts_ms"]
            row["against_mmap"] = mapped["experts_ms"] / row["experts_ms"]
        del row["tokens"]
        row |= cores_of_others(began, usage())
        print(line(share, str(index + 1), row), flush=True)
        turns.append(row)
    both = {name: statistics.median(row[name] for row in turns) for name in turns[0]}
    print(line(share, "median", both), flush=True)
    return {"share": share, "median": both, "turns": turns}


def child(kind: str, share: int, args: argparse.Namespace) -> dict | None:
    """One turn, in a process of its own; None for a mapped file where none can be held down."""
    command = [sys.executable, __file__, str(args.directory), "--turn", kind]
    command += ["--share", str(share)]
    for name in PASSED_ON:
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    command += ["--threads", str(args.threads)] if args.threads else []
    command += ["--no-prefetch"] if args.no_prefetch else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    said = (done.stderr or done.stdout).strip().splitlines()[-1]
    if kind == "ours":
        sys.exit(said)
    print(f"mmap left out: {said}")
    return None


def line(share: int, turn_name: str, row: dict) -> str:
    foreseen = f"{row['foreseen']:.0f}/{row['predicted']:.0f}"
    mapped = f"{row['mmap_ms']:6.0f} ms {row['against_mmap']:6.2f}" if "mmap_ms" in row else ""
    disk = f"{row['disk_gb_s']:5.2f} GB/s" if row["misses"] else " " * 10
    return (
        f"{share:>4}% {turn_name:>6} {row['hit']:6.3f} {row['misses']:7.0f} "
        f"{row['experts_ms']:6.1f} ms {row['allowed_ms']:6.1f} ms {row['of_allowed']:6.2f} "
        f"{disk} {foreseen:>9} {row['prefill_s']:7.2f} s {row['prefill_read']:5.0f} {mapped}"
    )


if __name__ == "__main__":
    main()
