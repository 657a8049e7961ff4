"""Speed of the CPU backbone: bytes of weights for few tokens, arithmetic for blocks, overhead.

    python bench/dense.py [--threads 1,2] [--rounds N] [--matrices-only]

A matrix is read from several copies in turn, so that it comes from memory and not from cache. The
yardstick, a plain read of the same memory by as many threads, is taken before each matrix in every
round; figures are medians over the rounds, shares are of that matrix's own reads.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from ceilings import Team
from environment import environment

from hybrid.checkpoint.expected import layer_tensors
from hybrid.config import ModelConfig, Quantization, RopeScaling, TextConfig
from hybrid.cpu_dense import CpuBackbone
from hybrid.cpu_dense.linear import LINEAR, fill_linear, multiply
from hybrid.cpu_dense.rows import Rows
from hybrid.cpu_dense.tiles import BF16, INT8, Layout, Tiled, aligned
from hybrid.cpu_experts.cores import available_cores
from hybrid.cpu_experts.pool import Pool, shared_pool

MATRICES = {  # K2.5: rows, columns
    "q_a|kv_a": (2112, 7168),
    "q_b": (12288, 1536),
    "o": (7168, 8192),
    "shared gate|up": (4096, 7168),
    "shared down": (7168, 2048),
    "router": (384, 7168),
    "lm_head /8": (20480, 7168),
}
LAYOUTS = {"bf16": BF16, "int8": INT8}
TOKENS = (1, 2, 4, 8, 16)
BLOCKS = (128, 512)  # of a prompt: arithmetic, one copy is enough
FOOTPRINT = 400 << 20  # bytes of copies of a matrix: far above any cache
TINY = TextConfig(
    vocab_size=1024, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, q_lora_rank=32,
    kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16,
    intermediate_size=64, moe_intermediate_size=32, n_routed_experts=384, num_experts_per_tok=8,
    n_shared_experts=1, first_k_dense_replace=1, routed_scaling_factor=2.827,
    norm_topk_prob=True, rms_norm_eps=1e-5, latent_norm_eps=1e-6, max_position_embeddings=16384,
    rope_theta=50000.0,
    rope_scaling=RopeScaling(
        factor=64.0, original_max_position_embeddings=256, beta_fast=32.0, beta_slow=1.0,
        mscale=1.0, mscale_all_dim=1.0,
    ),
)  # fmt: skip
LAYER = replace(
    TINY, vocab_size=4096, hidden_size=7168, num_hidden_layers=2, num_attention_heads=64,
    q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
    intermediate_size=18432, moe_intermediate_size=2048,
)  # fmt: skip


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_s(work: Callable[[], object], rounds: int) -> float:
    """Median seconds of a call, after one to warm up."""
    work()
    return statistics.median(seconds(work) for _ in range(rounds))


class Copies:
    """One matrix many times in one piece of memory, and a compiled call for each copy."""

    def __init__(
        self, memory: np.ndarray, rows: int, columns: int, layout: Layout, pool: Pool
    ) -> None:
        self.size = layout.nbytes(rows, columns)
        self.jobs = np.zeros(memory.nbytes // self.size, LINEAR)
        self.x, self.out, self.pool = Rows.zeros(columns), Rows.zeros(rows), pool
        self.x.memory[:] = 0.5
        for index, job in enumerate(self.jobs):
            address = memory.ctypes.data + index * self.size
            weight = Tiled(memory, address, rows, columns, layout=layout)
            fill_linear(job, weight, self.x, self.out)

    def bytes_per_s(self, tokens: int) -> float:
        """Of weights, over all copies."""
        self.jobs["tokens"] = tokens
        return len(self.jobs) * self.size / seconds(lambda: self._run(len(self.jobs)))

    def flops(self, tokens: int, rounds: int) -> float:
        """A second, with one copy again and again."""
        self.jobs["tokens"] = tokens
        work = 2 * int(np.prod(self.shape)) * tokens
        return work / median_s(lambda: self._run(1), rounds)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, with their padding."""
        matrix = self.jobs[0]["matrix"]
        return int(matrix["rows"]), int(matrix["steps"] * matrix["step_inputs"])

    def _run(self, count: int) -> None:
        run, first = multiply(), self.jobs.ctypes.data
        with self.pool.lock:
            self.pool.start()
            for index in range(count):
                run(first + index * LINEAR.itemsize, self.pool.state)


def matrix_rows(threads: int, rounds: int) -> list[dict]:
    """All matrices in both layouts: GB/s of weights and share of the read, GFLOP/s of blocks."""
    memory = aligned(FOOTPRINT)
    memory[:] = 0x3C01  # small numbers: as bf16, as codes and as scales
    pool, team = shared_pool(threads), Team(threads)
    cases = {
        (name, layout): Copies(memory, *shape, LAYOUTS[layout], pool)
        for name, shape in MATRICES.items()
        for layout in LAYOUTS
    }
    reads: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    speeds = {(case, tokens): [] for case in cases for tokens in TOKENS}
    for _ in range(rounds):
        for case, copies in cases.items():
            nbytes, taken = team.read(memory.view(np.uint8))
            reads[case].append(nbytes / taken)
            for tokens in TOKENS:
                speeds[case, tokens].append(copies.bytes_per_s(tokens))
    rows = []
    for (name, layout), copies in cases.items():
        case = name, layout
        row = {"matrix": name, "weights": layout, "threads": threads}
        row["MB"], read = round(copies.size / 1e6, 1), statistics.median(reads[case])
        row["read"] = round(read / 1e9, 1)
        for tokens in TOKENS:
            speed = statistics.median(speeds[case, tokens])
            shares = [s / r for s, r in zip(speeds[case, tokens], reads[case], strict=True)]
            row[f"T={tokens}"] = round(speed / 1e9, 1)
            row[f"/{tokens}"] = round(statistics.median(shares), 2)
        for tokens in BLOCKS:
            row[f"T={tokens} GFLOP/s"] = round(copies.flops(tokens, 3) / 1e9, 1)
        rows.append(row)
    return rows


class RandomTensors:
    """A checkpoint of random bf16 weights, made as they are asked for."""

    def __init__(self, text: TextConfig) -> None:
        config = ModelConfig(
            architecture="", text=text, vision=None,
            quantization=Quantization(num_bits=4, group_size=32),
            media_placeholder_token_id=None,
        )  # fmt: skip
        table = (text.vocab_size, text.hidden_size)
        self.shapes = {"model.embed_tokens.weight": table, "lm_head.weight": table}
        self.shapes["model.norm.weight"] = (text.hidden_size,)
        for layer in range(text.num_hidden_layers):
            self.shapes |= {t.name: t.shape for t in layer_tensors(config, layer)}
        self.rng = np.random.default_rng(0)

    def tensor(self, name: str) -> np.ndarray:
        """bf16 bits of uniform numbers that keep activations near 1."""
        shape = self.shapes[name]
        scale = 1.0 if len(shape) == 1 else 1.7 / np.sqrt(shape[1])
        values = self.rng.random(shape, np.float32) * np.float32(2 * scale) - np.float32(scale)
        return (values.view(np.uint32) >> 16).astype(np.uint16)


def verb_times(
    text: TextConfig, threads: int, tokens: int, position: int, rounds: int, weights: str
) -> dict:
    """Microseconds of each verb in an otherwise idle process."""
    backbone = CpuBackbone(
        text, RandomTensors(text), total=0, kv_tokens=position + tokens, threads=threads,
        weights=weights,
    )  # fmt: skip
    backbone.cache.fill(0)
    x = backbone.embed([1] * tokens)
    routing = backbone.route(1, x)
    shared = backbone.shared(1, routing)
    verbs = {
        "attend": lambda: backbone.attend(1, x, position),
        "dense": lambda: backbone.dense(0, x),
        "route": lambda: backbone.route(1, x),
        "shared": lambda: backbone.shared(1, routing),
        "combine": lambda: backbone.combine(x, shared, routing.hidden),
    }
    times = {name: round(median_s(work, rounds) * 1e6, 1) for name, work in verbs.items()}
    times["layer with experts"] = round(sum(times.values()) - times["dense"], 1)
    return times


def show(title: str, rows: list[dict]) -> None:
    """Print dictionaries of equal keys as a table."""
    print(f"\n{title}")
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    print("  ".join(key.rjust(width) for key, width in widths.items()))
    for row in rows:
        print("  ".join(str(row[key]).rjust(width) for key, width in widths.items()))


def verb_rows(threads: int) -> dict[str, list[dict]]:
    """Tiny and true dimensions, both layouts."""
    tiny = [
        {"position": position} | verb_times(TINY, threads, 1, position, 2000, "bf16")
        for position in (10, 100, 1000)
    ]
    true = [
        {"weights": weights, "tokens": tokens, "position": position}
        | verb_times(LAYER, threads, tokens, position, 5 if tokens == 1 else 1, weights)
        for weights in LAYOUTS
        for tokens, position in ((1, 0), (1, 4096), (128, 0), (128, 4096))
    ]
    return {"tiny_us": tiny, "k25_us": true}


def main() -> None:
    """Measure, print tables, end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", default=f"1,{available_cores()}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--matrices-only", action="store_true")
    options = parser.parse_args()
    counts = sorted({int(part) for part in options.threads.split(",")})
    matrices = [row for threads in counts for row in matrix_rows(threads, options.rounds)]
    result = {"bench": "dense", "environment": environment(), "matrices": matrices}
    show("matrices of K2.5: GB/s of weights for T tokens, and /T its share of the read", matrices)
    if not options.matrices_only:
        result |= verb_rows(counts[-1])
        show("verbs at tiny dimensions, microseconds, one token", result["tiny_us"])
        show("verbs at the dimensions of K2.5, microseconds", result["k25_us"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
