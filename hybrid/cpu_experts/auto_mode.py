"""activation="auto": int16 where it costs decode less than a tenth of its speed, else int8.

int16 makes the rounding of activations some 250 times finer at the same bytes of weights and twice
the arithmetic. Where the memory is what decode waits for, that is nearly free; where it is not, it
is not. So it is measured: one row times more weights than the caches hold, on all threads, in both
modes by turns. The numbers are kept on disk beside the kernels, because a machine must not answer
differently today because it was busy yesterday.
"""

import ctypes
import json
import logging
import statistics
import threading
import time
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hybrid.cpu_experts import dispatch, kernel_files
from hybrid.cpu_experts.job import row_stride
from hybrid.cpu_experts.record import row_block_bytes
from hybrid.cpu_experts.rows.modes import MODES, Name

log = logging.getLogger(__name__)
LIMIT = 0.10  # of decode speed
INPUTS = 7168  # K2.5's hidden size
ROUNDS = 5
MOST_BYTES, THREAD_BYTES = 1 << 30, 48 << 20


@dataclass(frozen=True, slots=True)
class Speeds:
    """GB/s of expert weights at one token, by mode."""

    int8: float
    int16: float

    @property
    def loss(self) -> float:
        """Part of the decode speed that int16 costs."""
        return max(0.0, 1 - self.int16 / self.int8)

    @property
    def mode(self) -> Name:
        """What "auto" means at these speeds."""
        return "int16" if self.loss < LIMIT else "int8"


def resolve(activation: str, isa: str | None, threads: int) -> Name:
    """The activation mode to use; says in the log what "auto" came to, and why."""
    if activation != "auto":
        return dispatch.select_mode(activation)
    name = dispatch.select(isa)
    if name == dispatch.PORTABLE:  # bound by arithmetic on every machine
        return "int8"
    speeds = known_speeds(name, threads)
    log.info(
        "activation auto: %s (one token: int8 %.1f GB/s, int16 %.1f GB/s, %.0f %% slower)",
        speeds.mode, speeds.int8, speeds.int16, 100 * speeds.loss,
    )  # fmt: skip
    return speeds.mode


@cache
def known_speeds(isa: str, threads: int) -> Speeds:
    """The speeds measured when this machine was first asked."""
    name, key = f"speeds-{isa}-{threads}", ("speeds", isa, threads)
    kept = _parsed(kernel_files.read(name, key))
    if kept is not None:
        return kept
    speeds = measure(isa, threads)
    kernel_files.write(name, key, json.dumps({"int8": speeds.int8, "int16": speeds.int16}).encode())
    return speeds


def _parsed(content: bytes | None) -> Speeds | None:
    """What was kept, None if it is something else."""
    try:
        values = json.loads(content or b"null")
        speeds = Speeds(float(values["int8"]), float(values["int16"]))
    except (ValueError, TypeError, KeyError):
        return None
    return speeds if speeds.int8 > 0 else None


def measure(isa: str, threads: int) -> Speeds:
    """Medians of interleaved rounds; takes some tenths of a second."""
    block_bytes = row_block_bytes(INPUTS)
    blocks = min(THREAD_BYTES, MOST_BYTES // threads) // block_bytes
    weights = np.full((threads, blocks * block_bytes), 1, np.uint8)  # zero pages would be cached
    seconds: dict[Name, list[float]] = {"int8": [], "int16": []}
    for _ in range(ROUNDS):
        for mode, times in seconds.items():
            times.append(_stream(isa, mode, weights, blocks))
    fast, fine = (weights.nbytes / 1e9 / statistics.median(times) for times in seconds.values())
    return Speeds(round(fast, 2), round(fine, 2))


def _stream(isa: str, mode: Name, weights: NDArray[np.uint8], blocks: int) -> float:
    """Seconds for one activation row to pass all weights, each thread over its own."""
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 9)(dispatch.rows16(isa, mode))
    step = MODES[mode].group_bytes
    stride = int(row_stride.py_func(INPUTS, step))
    row, index = np.zeros(stride, np.uint8), np.zeros(1, np.int32)
    ready = threading.Barrier(len(weights) + 1)

    def work(own: NDArray[np.uint8]) -> None:
        out = np.zeros(blocks * 16, np.float32)
        facts = own.ctypes.data, blocks, INPUTS // 32, row.ctypes.data, stride, step
        ready.wait()
        call(*facts, index.ctypes.data, 1, out.ctypes.data)

    workers = [threading.Thread(target=work, args=(own,)) for own in weights]
    for worker in workers:
        worker.start()
    ready.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began
