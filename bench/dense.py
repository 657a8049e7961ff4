"""Speed of the CPU backbone: bytes of weights for one token, arithmetic for blocks, overhead.

    python bench/dense.py [--threads N]

A matrix is read from several copies in turn, so that it comes from memory and not from cache.
Yardsticks are measured in the same run: a plain read of the same memory by the same
threads, and numpy's float32 matrix product. Medians over the rounds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from environment import environment
from numba import njit

from hybrid.checkpoint.expected import layer_tensors
from hybrid.config import ModelConfig, Quantization, RopeScaling, TextConfig
from hybrid.cpu_dense import CpuBackbone
from hybrid.cpu_dense.linear import LINEAR, fill_linear, multiply
from hybrid.cpu_dense.rows import Rows
from hybrid.cpu_dense.tiles import Tiled, aligned, tiled_bytes
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
FOOTPRINT = 400e6  # bytes of copies of a matrix: far above any cache
ROUNDS = 5
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


@njit(nogil=True)
def read_words(words: np.ndarray) -> np.uint64:
    """Add up a part of memory."""
    total = np.uint64(0)
    for index in range(len(words)):
        total += words[index]
    return total


def median_s(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median seconds of a call, after one to warm up."""
    work()
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def read_bandwidth(threads: int) -> float:
    """Bytes per second that the threads read together."""
    words = np.ones(int(FOOTPRINT) // 8, np.uint64)
    parts = np.array_split(words, threads)
    with ThreadPoolExecutor(threads) as pool:
        return words.nbytes / median_s(lambda: list(pool.map(read_words, parts)))


def matrix_rows(threads: int, bandwidth: float, peak: float) -> list[dict]:
    """All matrices: GB/s of weights at one token, GFLOP/s at blocks."""
    pool = shared_pool(threads)
    return [matrix_row(name, *shape, pool, bandwidth, peak) for name, shape in MATRICES.items()]


def matrix_row(
    name: str, rows: int, columns: int, pool: Pool, bandwidth: float, peak: float
) -> dict:
    """One matrix."""
    size = tiled_bytes(rows, columns)
    copies = max(1, int(FOOTPRINT / size))
    memory = aligned(copies * size)
    memory[:] = 0x3C01  # a small normal number
    row = {"matrix": name, "MB": round(size / 1e6, 1)}
    seconds = median_s(lambda: multiply_copies(memory, rows, columns, copies, 1, pool))
    row["T=1 GB/s"] = round(copies * size / seconds / 1e9, 1)
    row["of read"] = round(copies * size / seconds / bandwidth, 2)
    for tokens in (8, 128, 512):
        work = partial(multiply_copies, memory, rows, columns, 1, tokens, pool)
        flops = 2 * rows * columns * tokens / median_s(work, 3)
        row[f"T={tokens} GFLOP/s"] = round(flops / 1e9, 1)
    row["of sgemm"] = round(flops / peak, 2)
    return row


def multiply_copies(
    memory: np.ndarray, rows: int, columns: int, copies: int, tokens: int, pool: Pool
) -> None:
    """One product with each copy in turn."""
    x, out = Rows.zeros(columns), Rows.zeros(rows)
    x.memory[:tokens] = 0.5
    job, run = np.zeros(1, LINEAR), multiply()
    for copy in range(copies):
        address = memory.ctypes.data + copy * tiled_bytes(rows, columns)
        fill_linear(job[0], Tiled(memory, address, rows, columns), x, out)
        job[0]["tokens"] = tokens
        with pool.lock:
            pool.start()
            run(job.ctypes.data, pool.state)


def sgemm_flops() -> float:
    """What numpy reaches on float32, with as many threads as its BLAS takes."""
    a, b = np.ones((512, 4096), np.float32), np.ones((4096, 4096), np.float32)
    return 2 * 512 * 4096 * 4096 / median_s(lambda: a @ b)


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


def verb_times(text: TextConfig, threads: int, tokens: int, position: int, rounds: int) -> dict:
    """Microseconds of each verb in an otherwise idle process."""
    kv_tokens = position + tokens
    backbone = CpuBackbone(text, RandomTensors(text), total=0, kv_tokens=kv_tokens, threads=threads)
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


def main() -> None:
    """Measure, print tables, end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=available_cores())
    threads = parser.parse_args().threads
    bandwidth, peak = read_bandwidth(threads), sgemm_flops()
    result = {
        "bench": "dense",
        "environment": environment(),
        "threads": threads,
        "read_gb_s": round(bandwidth / 1e9, 1),
        "sgemm_gflop_s": round(peak / 1e9, 1),
        "matrices": matrix_rows(threads, bandwidth, peak),
        "tiny_us": [
            {"position": position} | verb_times(TINY, threads, 1, position, 2000)
            for position in (10, 100, 1000)
        ],
        "k25_us": [
            {"tokens": tokens, "position": position}
            | verb_times(LAYER, threads, tokens, position, 5 if tokens == 1 else 1)
            for tokens, position in ((1, 0), (1, 4096), (128, 0), (128, 4096))
        ],
    }
    print(f"read {result['read_gb_s']} GB/s, sgemm {result['sgemm_gflop_s']} GFLOP/s")
    show(f"matrices of K2.5, {threads} threads", result["matrices"])
    show("verbs at tiny dimensions, microseconds, one token", result["tiny_us"])
    show("verbs at the dimensions of K2.5, microseconds", result["k25_us"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
