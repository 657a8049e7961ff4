"""What one call of an ExpertLayer costs when there is nearly nothing to compute."""

import statistics
import time
from functools import cache

import numpy as np
from numba import types

from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.compiled import callback, function
from hybrid.cpu_experts.native import call_kernel
from hybrid.cpu_experts.pool import parallel

WORD = types.intp


def _nothing(job, unit, worker):  # noqa: ANN001, ANN202
    pass


def _run(state, kernel, job, units, alone):  # noqa: ANN001, ANN202
    if alone:
        for unit in range(units):
            call_kernel(kernel, job, unit, 0)
    else:
        parallel(state, kernel, job, units)


@cache
def _code() -> tuple[object, object]:
    nothing = callback("bench-nothing", types.void(WORD, WORD, WORD), _nothing)
    signature = types.void(WORD, WORD, WORD, WORD, types.boolean)
    return nothing, function("bench-run", signature, _run)


def launch_and_join_us(layer: ExpertLayer, rounds: int = 2000) -> float:
    """Median microseconds of an empty phase on the layer's pool while its workers are awake."""
    nothing, run = _code()
    times = []
    with layer._pool.lock:
        layer._pool.start()
        for _ in range(rounds):
            began = time.perf_counter()
            run(layer._pool.state, nothing.address, 0, layer.threads, False)
            times.append((time.perf_counter() - began) * 1e6)
    return statistics.median(times)


def tiny_step_us(rounds: int = 5000) -> float:
    """Median microseconds of one forward of a tiny layer: hidden 64, intermediate 32, 8 picks."""
    layer = ExpertLayer(64, 64, 32)
    wide = np.zeros((32, 8), np.int32), np.zeros((32, 2), np.uint16)
    narrow = np.zeros((64, 4), np.int32), np.zeros((64, 1), np.uint16)
    for e in range(64):
        layer.set_expert(e, gate=wide, up=wide, down=narrow)
    x, ids = np.ones((1, 64), np.float32), np.arange(8, dtype=np.int32)[None]
    weights = np.ones((1, 8), np.float32)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        layer.forward(x, ids, weights)
        times.append((time.perf_counter() - began) * 1e6)
    return statistics.median(times)
