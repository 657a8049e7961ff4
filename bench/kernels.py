"""How fast the routed experts run here, against what this machine can read at the same moment.

    python bench/kernels.py [--experts 64] [--rounds 11] [--activation int8] [--isa avx2]

One layer of K2.5 (hidden 7168, intermediate 2048, top-8) with enough experts resident that no cache
holds them; every step picks other experts. Rounds are interleaved: each measures a plain read of 8
records and then every row once, for 1 thread and for all, so that noise hits all alike. Prints
medians with the range, and one JSON line last.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
from environment import environment
from numba import types

from hybrid.cpu_experts import ExpertLayer, verify
from hybrid.cpu_experts.compiled import callback, function
from hybrid.cpu_experts.cores import available_cores
from hybrid.cpu_experts.native import call_kernel, load_i64, store_i64
from hybrid.cpu_experts.pool import parallel
from hybrid.cpu_experts.simd import add, load_i32x8, splat_i32, sum_lanes

HIDDEN, INTERMEDIATE, TOP_K = 7168, 2048, 8
READ_UNIT = 1 << 18  # bytes; about a GATE_UP unit


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str  # "read", "decode" or "prefill"
    tokens: int
    threads: int
    unit: str  # "GB/s" of distinct record bytes, or "GFLOP/s"
    median: float
    low: float
    high: float
    milliseconds: float
    of_read: float | None  # share of the read bandwidth of the same threads


def _read(job, unit, worker):  # noqa: ANN001, ANN202
    base = load_i64(job, 0) + unit * READ_UNIT
    a, b = splat_i32(np.int32(0)), splat_i32(np.int32(0))
    for at in range(0, READ_UNIT, 128):
        a, b = add(a, load_i32x8(base, at)), add(b, load_i32x8(base, at + 32))
        a, b = add(a, load_i32x8(base, at + 64)), add(b, load_i32x8(base, at + 96))
    store_i64(job, 1 + worker, sum_lanes(add(a, b)))


@cache
def read_bandwidth_code() -> tuple[int, object]:
    """Address of read(job, unit, worker) and the function that spreads it over the pool."""
    word = types.intp
    read = callback("bench-read", types.void(word, word, word), _read)
    signature = types.void(word, word, word, word, types.boolean)
    return read.address, function("bench-run", signature, _run)


def _run(state, kernel, job, units, alone):  # noqa: ANN001, ANN202
    if alone:
        for unit in range(units):
            call_kernel(kernel, job, unit, 0)
    else:
        parallel(state, kernel, job, units)


def fill(layer: ExpertLayer, rng: np.random.Generator) -> float:
    """Give every expert the same random weights; return the repack's GB/s on mapped pages."""
    tensors = {}
    for name, out, inputs in (
        ("gate", INTERMEDIATE, HIDDEN),
        ("up", INTERMEDIATE, HIDDEN),
        ("down", HIDDEN, INTERMEDIATE),
    ):
        packed = rng.integers(-(2**31), 2**31, (out, inputs // 8), dtype=np.int32)
        scale = rng.uniform(0.005, 0.05, (out, inputs // 32)).astype(np.float32)
        tensors[name] = packed, (scale.view(np.uint32) >> 16).astype(np.uint16)
    for e in range(layer.n_experts):
        layer.set_expert(e, **tensors)
    start = time.perf_counter()
    for e in range(min(8, layer.n_experts)):
        layer.set_expert(e, **tensors)
    return min(8, layer.n_experts) * layer.shape.nbytes / (time.perf_counter() - start) / 1e9


def read_once(layer: ExpertLayer, rng: np.random.Generator) -> float:
    """Seconds to read 8 neighbouring records."""
    kernel, run = read_bandwidth_code()
    first = int(rng.integers(0, layer.n_experts - TOP_K + 1))
    job = np.zeros(2 + layer.threads, np.int64)
    job[0] = layer.records[first].ctypes.data
    units = TOP_K * layer.shape.nbytes // READ_UNIT
    pool = layer._pool
    with pool.lock:
        if layer.threads > 1:
            pool.start()
        start = time.perf_counter()
        run(pool.state, kernel, job.ctypes.data, units, layer.threads == 1)
        return time.perf_counter() - start


def step_once(layer: ExpertLayer, tokens: int, rng: np.random.Generator) -> tuple[float, int]:
    """Seconds of one forward over random distinct experts per token, and experts touched."""
    x = rng.standard_normal((tokens, HIDDEN)).astype(np.float32)
    ids = np.stack([rng.choice(layer.n_experts, TOP_K, replace=False) for _ in range(tokens)])
    weights = np.full((tokens, TOP_K), 1 / TOP_K, np.float32)
    ids = ids.astype(np.int32)
    start = time.perf_counter()
    layer.forward(x, ids, weights)
    return time.perf_counter() - start, len(np.unique(ids))


def measure(layers: list[ExpertLayer], options: argparse.Namespace) -> list[Row]:
    """Interleaved rounds of everything, reduced to rows."""
    rng = np.random.default_rng(1)
    record = layers[0].shape.nbytes
    samples: dict[tuple[str, int, int], list[tuple[float, float]]] = {}  # -> rate, seconds
    for index in range(options.rounds + 1):
        for layer in layers:
            found = [("read", 0, TOP_K * record / 1e9, read_once(layer, rng))]
            for tokens in options.decode:
                seconds, experts = step_once(layer, tokens, rng)
                found.append(("decode", tokens, experts * record / 1e9, seconds))
            for tokens in options.prefill if index <= options.prefill_rounds else ():
                seconds, _ = step_once(layer, tokens, rng)
                work = tokens * TOP_K * 6 * HIDDEN * INTERMEDIATE / 1e9
                found.append(("prefill", tokens, work, seconds))
            for what, tokens, amount, seconds in found if index else ():  # round 0 warms up
                key = what, tokens, layer.threads
                samples.setdefault(key, []).append((amount / seconds, seconds))
    return [_row(key, values, samples) for key, values in samples.items()]


def _row(
    key: tuple[str, int, int],
    values: list[tuple[float, float]],
    samples: dict[tuple[str, int, int], list[tuple[float, float]]],
) -> Row:
    what, tokens, threads = key
    rates, seconds = [rate for rate, _ in values], [second for _, second in values]
    read = statistics.median(rate for rate, _ in samples["read", 0, threads])
    median = statistics.median(rates)
    return Row(
        what, tokens, threads, "GFLOP/s" if what == "prefill" else "GB/s", round(median, 2),
        round(min(rates), 2), round(max(rates), 2), round(statistics.median(seconds) * 1e3, 3),
        round(median / read, 3) if what == "decode" else None,
    )  # fmt: skip


def launch_and_join(layer: ExpertLayer) -> float:
    """Microseconds of an empty phase on the pool while its workers are awake."""
    _, run = read_bandwidth_code()
    kernel = callback("bench-nothing", types.void(*[types.intp] * 3), _nothing).address
    times = []
    with layer._pool.lock:
        layer._pool.start()
        for _ in range(2000):
            start = time.perf_counter()
            run(layer._pool.state, kernel, 0, layer.threads, False)
            times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def _nothing(job, unit, worker):  # noqa: ANN001, ANN202
    pass


def tiny_step() -> float:
    """Microseconds of one forward of a tiny layer: hidden 64, intermediate 32, 8 picks."""
    layer = ExpertLayer(64, 64, 32)
    packed, scale = np.zeros((64, 8), np.int32), np.zeros((64, 2), np.uint16)
    wide = packed[:32], scale[:32]
    narrow = np.zeros((64, 4), np.int32), np.zeros((64, 1), np.uint16)
    for e in range(64):
        layer.set_expert(e, gate=wide, up=wide, down=narrow)
    x, ids = np.ones((1, 64), np.float32), np.arange(8, dtype=np.int32)[None]
    weights = np.ones((1, 8), np.float32)
    times = []
    for _ in range(5000):
        start = time.perf_counter()
        layer.forward(x, ids, weights)
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def integers(text: str) -> list[int]:
    """Parse "1,2,4"."""
    return [int(part) for part in text.split(",") if part]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--prefill-rounds", type=int, default=3)
    parser.add_argument("--decode", type=integers, default=[1, 2, 4, 8])
    parser.add_argument("--prefill", type=integers, default=[128, 512])
    parser.add_argument("--threads", type=integers, default=sorted({1, available_cores()}))
    parser.add_argument("--activation", default="int8")
    parser.add_argument("--isa", default=None)
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, print the JSON line."""
    options = arguments()
    start = time.perf_counter()
    verify(options.isa, options.activation)
    kernels_s = time.perf_counter() - start
    layers: list[ExpertLayer] = []
    for threads in options.threads:
        layer = ExpertLayer(
            options.experts, HIDDEN, INTERMEDIATE, options.isa, threads, options.activation,
            records=layers[0].records if layers else None,
        )  # fmt: skip
        repack_gb_s = fill(layer, np.random.default_rng(0))
        layers.append(layer)
    rows = measure(layers, options)
    print(f"{'':10}{'tokens':>7}{'threads':>8}{'median':>9}{'low':>8}{'high':>8} {'ms':>9}")
    for row in rows:
        share = f"{row.of_read:7.0%} of read" if row.of_read else ""
        print(
            f"{row.what:10}{row.tokens:7}{row.threads:8}{row.median:9.1f}{row.low:8.1f}"
            f"{row.high:8.1f} {row.milliseconds:9.2f}  {row.unit} {share}"
        )
    extra = {
        "kernels_s": round(kernels_s, 3),
        "repack_gb_s": round(repack_gb_s, 2),
        "launch_join_us": round(launch_and_join(layers[-1]), 2),
        "tiny_step_us": round(tiny_step(), 2),
    }
    print(", ".join(f"{name} {value}" for name, value in extra.items()))
    report = {
        "bench": "kernels",
        "environment": environment(),
        "isa": layers[0].isa,
        "activation": layers[0].activation,
        "experts": layers[0].n_experts,
        "resident_gb": round(layers[0].records.nbytes / 1e9, 2),
        **extra,
        "rows": [asdict(row) for row in rows],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
