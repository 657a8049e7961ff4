"""How fast the routed experts run here, against what this machine can do at the same moment.

    python bench/kernels.py [--isa avx2] [--activation int8,int16] [--peer llama.cpp] [--json FILE]

One layer of K2.5 (hidden 7168, intermediate 2048, top-8) with enough experts resident that no cache
holds them; every step picks other experts. A round measures, for each thread count, a plain read of
the records and one in four streams, the peak of an int8 loop, and then every step once in every
mode and on every peer, with the same inputs; so noise hits all alike. A step follows another one at
once, as layers do. Shares "of read" are of the plain read.
GB/s count each distinct expert's record once a step; GFLOP/s two operations for each
multiply-accumulate of the layer, of which an int16 activation costs two of the peak's.

Prints a table of medians with the range, then JSON lines: one about the machine, one for each row.
"""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import synthetic
from ceilings import host_peaks
from environment import environment
from hand_off import launch_and_join_us, tiny_step_us
from ours import Ours
from peer import PEERS, PeerError, PeerProcess, require
from rounds import LONGEST_S, Run, check, measure
from rows import Row, json_lines, rows, table
from synthetic import RECORD_BYTES, TOP_K

from hybrid.benchmark.noise import cores_of_others, usage
from hybrid.cpu_experts import available_isas, verify
from hybrid.cpu_experts.cores import available_cores
from hybrid.errors import KimiLocalError, PlacementError

FEWEST = 97  # experts, 2.4 GB: with fewer a cache might hold a part worth mentioning
SPARE = 2e9  # bytes left to each process for activations, and to everybody else


def resident(wanted: list[int], available: float, peers: list[str]) -> int:
    """How many experts to hold: as many as asked for, fewer where the RAM of all copies is short.

    `peers` names one for each process that will hold a copy. Raises PlacementError below FEWEST,
    unless fewer were asked for.
    """
    copies = 1 + sum(PEERS[name].memory for name in peers)
    fit = int((available - SPARE * (1 + len(peers))) / (RECORD_BYTES * copies))
    if fit < min(FEWEST, max(wanted)):
        raise PlacementError(
            f"{available / 1e9:.1f} GB of RAM are free, enough for {max(fit, 0)} experts in "
            f"{copies:.1f} copies; {FEWEST} are the fewest that say something: "
            "free memory, or use fewer peers or threads"
        )
    return min(max(wanted), fit)


def layers(options: argparse.Namespace, experts: int) -> tuple[list[Ours], float]:
    """Layers for all sets, modes and thread counts, over the same records; GB/s of repacking."""
    made: list[Ours] = []
    speed = 0.0
    for isa in options.isa:
        for activation in options.activation:
            for threads in options.threads:
                layer = Ours(experts, isa, activation, threads, made[0] if made else None)
                speed = speed or layer.fill()
                made.append(layer)
    return made, speed


def kernels_ready_s(options: argparse.Namespace) -> float:
    """Seconds to compile, or to read from disk, and to verify what will run."""
    began = time.perf_counter()
    for isa in options.isa:
        for activation in options.activation:
            verify(isa, activation)
    return time.perf_counter() - began


def huge_page_bytes() -> int:
    """How much of this process's memory lies on huge pages."""
    rollup = Path("/proc/self/smaps_rollup")
    lines = rollup.read_text().splitlines() if rollup.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("AnonHugePages"))


def words(text: str) -> list[str]:
    """The parts of "a,b,c"."""
    return [part for part in text.split(",") if part]


def number(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` on."""

    def parse(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is too small; {least} is the least")
        return int(text)

    return parse


def numbers(least: int) -> Callable[[str], list[int]]:
    """A parser of "1,2,4", each from `least` on."""
    return lambda text: [number(least)(part) for part in words(text)]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--experts", type=numbers(TOP_K), default=[384, 64], help="the router chooses among these")
    add("--decode", type=numbers(1), default=[1, 2, 4, 8, 16], help="tokens of a step")
    add("--prefill", type=numbers(1), default=[32, 128, 512, 2048], help="tokens of a step")
    add("--threads", type=numbers(1), default=sorted({1, available_cores()}))
    isas = available_isas()
    add("--isa", type=words, default=[isas[-1]], help="of " + ", ".join(isas))
    add("--activation", type=words, default=["int8"], help="modes of ours")
    add("--rounds", type=number(1), default=11)
    add("--prefill-rounds", type=number(1), default=3, help="so many of the rounds have prefill")
    add("--peer", action="append", choices=sorted(PEERS), default=[], help="repeatable")
    add("--json", type=Path, help="where the JSON lines go instead of standard output")
    options = parser.parse_args()
    options.peaks = peaks(host_peaks(), options.isa)
    if not options.peaks:
        parser.error("this bench needs an x86-64 CPU with AVX2")
    return options


def peaks(host: tuple[str, ...], isas: list[str]) -> list[str]:
    """The int8 loops to measure: each set's own, and the fastest for sets that have none."""
    own = [isa for isa in host if isa in isas]
    return own if set(own) == set(isas) else list(dict.fromkeys([*own, *host[-1:]]))


def checked(peers: list[PeerProcess], ours: Ours) -> dict[str, str]:
    """How far each is from us, once its weights are there; PeerError if it is too far."""
    found = {}
    for peer in peers:
        peer.wait_ready()
        error = check(ours, peer, ours.layer.n_experts)
        found[f"{peer.engine} {peer.version}"] = f"relative L2 {error:.1e}"
    return found


def main() -> None:
    """Measure, print the table, write the JSON lines."""
    options = arguments()
    for name in options.peer:
        require(name)
    processes = [(name, threads) for name in options.peer for threads in options.threads]
    available = psutil.virtual_memory().available
    experts = resident(options.experts, available, [name for name, _ in processes])
    options.experts = sorted({min(n, experts) for n in options.experts}, reverse=True)
    most = max([*options.decode, *options.prefill, TOP_K])
    ready_s = kernels_ready_s(options)
    ours, repack_gb_s = layers(options, experts)
    with ExitStack() as stack:
        peers = [PeerProcess(name, experts, threads, most) for name, threads in processes]
        for peer in peers:
            stack.callback(peer.close)
        agreement = checked(peers, ours[0])
        run = Run(options, [*ours, *peers], synthetic.activations(most))
        before = usage()
        found = rows(measure(run, ours[0].layer.records))
        noise = cores_of_others(before, usage())
    head = {
        "bench": "kernels",
        "environment": environment(),
        "experts": experts,
        "resident_gb": round(experts * RECORD_BYTES / 1e9, 2),
        "huge_pages_gb": round(huge_page_bytes() / 1e9, 2),
        "peers": agreement,
        **noise,
        "kernels_s": round(ready_s, 3),
        "repack_gb_s": round(repack_gb_s, 2),
        "launch_join_us": round(launch_and_join_us(ours[-1].layer), 2),
        "tiny_step_us": round(tiny_step_us(), 2),
    }
    report(head, found, run.left_out, options.json)


def report(
    head: dict[str, object], found: list[Row], left_out: dict[str, str], target: Path | None
) -> None:
    """Print the table and what surrounds it; JSON lines to the file, or behind that."""
    print("\n".join(table(found)))
    for name, value in head.items():
        if name not in ("bench", "environment") and value != {}:
            print(f"{name:16}{value}")
    for step, time_needed in left_out.items():
        print(f"left out: {step}, {time_needed} a step; at most {LONGEST_S} s are spent")
    lines = "\n".join(json_lines(head, found))
    if target:
        target.write_text(lines + "\n", "utf-8")
    else:
        print(lines)


if __name__ == "__main__":
    try:
        main()
    except (KimiLocalError, PeerError) as error:
        sys.exit(f"kernels: {error}")
