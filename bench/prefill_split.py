"""What splitting a prompt's experts between link and CPU gives: on paper, and in small for real.

    python bench/prefill_split.py [--tokens 512,2048,8192,32768] [--no-measure] [--rounds 3]

paper     the table of the research behind the split (150 tokens/s on the CPU, a device without
          cost) beside this split on the same assumptions, and their ratio. Differences come from
          the curves of popularity, of which a few points are known and the rest is interpolated,
          and from the clock: here the ring is 32 records long, a launch takes 4 of them, and a
          layer does not borrow from the next one
machines  K2.5 on described machines with PCIe 4 and 5: tokens/s of the routed experts alone, if the
          CPU computes all, the link takes all, and split; by the formula and by a clock that runs
          records, launches and ring out. `early`: how much a layer gains if records of it are
          uploaded while the backbone computes, as many as half a ring and all of them right
measured  this machine: threads for a device, a link that sleeps, the portable kernels for the CPU;
          small experts, the same bits from all three ways, which is checked

Prints tables and, last, one JSON line.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace

import numpy as np
from environment import environment
from numpy.typing import NDArray

from hybrid.benchmark.noise import cores_of_others, usage
from hybrid.cache.card_room import RING
from hybrid.cache.split import Costs, Split, split
from hybrid.placement import builtin_config, builtin_machine
from hybrid.placement.cards import in_order, together
from hybrid.placement.needs import BLOCK_TOKENS, Needs, needs
from hybrid.placement.rates import speeds
from hybrid.placement.speed import costs

TOGETHER = 4  # records a launch (hybrid/cache/ring.py)
GB = 1e9
# share of the picks that the busiest 5 %, 10 % ... of a layer's experts take
SKEWS = {
    "Kimi-Linear": ((0.05, 0.38), (0.1, 0.52), (0.2, 0.70), (0.3, 0.81), (0.5, 0.94)),
    "Qwen3.8": ((0.1, 0.42), (0.25, 0.69), (0.5, 0.91)),
    "flat": ((0.1, 0.20), (0.25, 0.42), (0.5, 0.70)),
    "uniform": (),
}
# tokens/s of the research's table: PCIe 5 at 52 GB/s, 150 tokens/s on the CPU
PAPER = {
    512: (356, 305, 230, 197),
    1024: (484, 417, 296, 243),
    2048: (682, 592, 417, 336),
    4096: (1024, 901, 623, 523),
    8192: (1657, 1525, 995, 896),
}
# stream only: tokens/s at 25 and 52 GB/s
CEILINGS = {
    2048: (90, 187),
    4096: (180, 373),
    8192: (359, 745),
    16384: (718, 1490),
    32768: (1437, 2979),
}
GAINS = {2048: 3.2, 4096: 3.7}  # PCIe 4, Kimi-Linear: split over the better of the two alone
CPU_TOKENS_S = 150
MACHINES = {
    "PCIe 4": ("threadripper-pro-7965wx-rtx-4090", "epyc-7742-2s-rtx-a6000"),
    "PCIe 5": ("epyc-9355-2s-rtx-5090", "threadripper-pro-9975wx-rtx-pro-6000"),
}
MODEL = needs(builtin_config(), weights="int8", vision=False)


@dataclass(frozen=True, slots=True)
class Line:
    """One way to lay out one layer, in seconds of the formula and of the clock."""

    cpu: float
    stream: float
    split: float
    clock: float
    early: float  # the clock with half a ring there already
    streamed: int


def popularity(skew: str, experts: int) -> NDArray[np.float64]:
    """Shares of the picks, the busiest expert first. [experts], their sum is 1

    Cumulated shares between the known points lie on straight lines.
    """
    points = ((0.0, 0.0), *SKEWS[skew], (1.0, 1.0))
    at, share = zip(*points, strict=True)
    return np.diff(np.interp(np.arange(experts + 1) / experts, at, share))


def clock(found: Split, tokens: NDArray[np.float64], rates: Costs, ring: int = RING) -> float:
    """Seconds until both sides are done, record by record.

    A record is uploaded into its slot of the ring once the launch that read that slot before has
    ended; a launch begins when its records are there and the one before has ended.
    """
    seconds = rates.device_s(tokens[found.streamed])
    device = float(rates.device_s(tokens[found.resident]).sum())
    ended = np.zeros(len(seconds))  # by record: end of its launch
    link = 0.0
    for start in range(0, len(seconds), min(TOGETHER, ring)):
        launch = slice(start, min(start + TOGETHER, len(seconds)))
        for at in range(launch.start, launch.stop):
            link = max(link, ended[at - ring] if at >= ring else 0.0) + rates.upload_s
        device = max(device, link) + float(seconds[launch].sum())
        ended[launch] = device
    return max(device, found.cpu_s)


def laid_out(tokens: NDArray[np.float64], rates: Costs, gap_s: float) -> Line:
    """A layer in all ways, with `gap_s` seconds between two layers for early uploads."""
    nobody = np.zeros(len(tokens), np.bool_)
    best = split(tokens, nobody, rates)
    early = min(RING // 2, int(gap_s / rates.upload_s), len(best.streamed))
    ahead = nobody.copy()
    ahead[best.streamed[:early]] = True
    with_early = split(tokens, ahead, rates)  # what is there already is as good as resident
    return Line(
        cpu=split(tokens, nobody, replace(rates, link_gb_s=0.0)).seconds,
        stream=split(tokens, nobody, replace(rates, cpu_gflop_s=0.0)).seconds,
        split=best.seconds,
        clock=clock(best, tokens, rates),
        early=clock(with_early, tokens, rates),
        streamed=len(best.streamed),
    )


def paper_rows() -> list[dict[str, object]]:
    """The research's figures beside this split on its assumptions."""
    rows = []
    for count, theirs in PAPER.items():
        for skew, expected in zip(SKEWS, theirs, strict=True):
            found = tokens_s(count, on_paper(count, skew, 52.0).clock)
            rows.append(paper_row("split, PCIe 5", count, skew, expected, found))
    for count, ceilings in CEILINGS.items():
        for link, gb_s, expected in zip(("PCIe 4", "PCIe 5"), (25.0, 52.0), ceilings, strict=True):
            found = tokens_s(count, on_paper(count, "uniform", gb_s).stream)
            rows.append(paper_row(f"stream only, {link}", count, "any", expected, found))
    for count, expected in GAINS.items():
        line = on_paper(count, "Kimi-Linear", 25.0)
        gain = min(line.cpu, line.stream) / line.clock
        rows.append(paper_row("times faster, PCIe 4", count, "Kimi-Linear", expected, gain))
    return rows


def on_paper(count: int, skew: str, link_gb_s: float) -> Line:
    """A layer where the CPU is bound by its arithmetic alone and the device costs nothing."""
    flop = CPU_TOKENS_S * MODEL.moe_layers * MODEL.per_token * MODEL.expert_flop
    free = float("inf")
    rates = Costs(MODEL.record_bytes, MODEL.expert_flop, link_gb_s, free, free, free, flop / GB)
    return laid_out(count * MODEL.per_token * popularity(skew, MODEL.experts), rates, 0.0)


def tokens_s(count: int, layer_s: float) -> float:
    return count / MODEL.moe_layers / layer_s


def paper_row(what: str, count: int, skew: str, expected: float, found: float) -> dict[str, object]:
    return {
        "what": what, "tokens": count, "skew": skew, "theirs": expected, "ours": round(found, 2),
        "ratio": round(found / expected, 3),
    }  # fmt: skip


def machine_rows(counts: list[int]) -> list[dict[str, object]]:
    """The split on described machines, tokens/s of the routed experts."""
    rows = []
    for link, names in MACHINES.items():
        for name in names:
            hardware = builtin_machine(name)
            rates = speeds(hardware, record_bytes=MODEL.record_bytes, weights="int8")
            each = costs(MODEL, rates, together(in_order(hardware)))
            for skew in ("Kimi-Linear", "uniform"):
                for count in counts:
                    tokens = count * MODEL.per_token * popularity(skew, MODEL.experts)
                    line = laid_out(tokens, each, gap_seconds(MODEL, rates.device_gflop_s, count))
                    rows.append(machine_row(link, name, skew, count, line))
    return rows


def machine_row(link: str, name: str, skew: str, count: int, line: Line) -> dict[str, object]:
    cpu, stream, best, timed = (
        round(tokens_s(count, seconds), 1)
        for seconds in (line.cpu, line.stream, line.split, line.clock)
    )
    return {
        "link": link, "machine": name, "skew": skew, "tokens": count, "streamed": line.streamed,
        "cpu": cpu, "stream": stream, "split": best, "clock": timed,
        "early": round(100 * (line.clock / line.early - 1), 1),
    }  # fmt: skip


def split_us(rounds: int = 501) -> float:
    """Microseconds that the split of one layer of K2.5 takes, median."""
    rng = np.random.default_rng(0)
    tokens = rng.multinomial(2048 * MODEL.per_token, popularity("Kimi-Linear", MODEL.experts))
    resident = rng.permutation(MODEL.experts) < MODEL.experts // 8
    rates = Costs(MODEL.record_bytes, MODEL.expert_flop, 52.0, 1500.0, 9e4, 400.0, 8e3)
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        split(tokens, resident, rates, ~resident)
        taken.append(time.perf_counter() - began)
    return 1e6 * statistics.median(taken)


def gap_seconds(model: Needs, gflop_s: float, tokens: int) -> float:
    """The device's attention between two layers' experts, when the link has nothing to do."""
    flop = (model.token_flop["attention"] + model.token_flop["router"]) / model.layers
    return tokens * flop / (gflop_s * GB) if tokens >= BLOCK_TOKENS else 0.0


def measured_rows(rounds: int) -> list[dict[str, object]]:
    """All three ways on this machine, interleaved."""
    from split_run import WARM_UP, Miniature

    runs = Miniature()
    ways: dict[str, list[float]] = {"cpu": [], "stream": [], "split": []}
    for _ in range(WARM_UP):
        runs.run("split")
    for _ in range(rounds):
        for way, seconds in ways.items():
            seconds.append(runs.run(way))
    runs.close()
    return [
        {
            "way": way,
            "seconds": round(statistics.median(each), 3),
            "runs": [round(seconds, 3) for seconds in each],
            "predicted": round(runs.predicted(way), 3),
        }
        for way, each in ways.items()
    ]


def show(title: str, rows: list[dict[str, object]]) -> None:
    print(f"\n{title}")
    names = list(rows[0])
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(names))]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def main() -> None:
    """Simulate, measure, print, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="512,1024,2048,4096,8192,16384,32768")
    parser.add_argument("--no-measure", action="store_true", help="arithmetic only")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found = {
        "paper": paper_rows(),
        "machines": machine_rows([int(count) for count in args.tokens.split(",")]),
    }
    show(
        "beside the research's figures (150 tokens/s on the CPU, a device without cost)",
        found["paper"],
    )
    show("tokens/s of K2.5's routed experts on described machines", found["machines"])
    line: dict[str, object] = {"bench": "prefill_split", "split_us": round(split_us(), 1)}
    print(f"\nthe split of a layer itself takes {line['split_us']} us")
    if not args.no_measure:
        before, began = usage(), time.perf_counter()
        found["measured"] = measured_rows(args.rounds)
        line |= {"seconds": round(time.perf_counter() - began, 1)}
        line |= cores_of_others(before, usage())
        show("measured here: threads for a device, a throttled link", found["measured"])
    print(json.dumps(line | found | {"environment": environment()}))


if __name__ == "__main__":
    main()
