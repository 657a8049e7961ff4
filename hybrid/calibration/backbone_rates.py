"""The backbone's matrices on the CPU, from memory: one token, and a block of a prompt.

Several copies of a layer's matrices lie end to end and are multiplied in turn, so that none of them
is in a cache when its turn comes. bf16 and int8 weights take turns in the same memory: of both,
any bits are numbers.
"""

import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hybrid.cpu_dense.linear import LINEAR, fill_linear, multiply
from hybrid.cpu_dense.rows import MAX_BLOCK, Rows
from hybrid.cpu_dense.tiles import BF16, INT8, Layout, Tiled, aligned
from hybrid.cpu_experts.pool import shared_pool
from hybrid.hardware.kept_rates import RatesOf

LAYOUTS = {"bf16": BF16, "int8": INT8}
LEAST_BYTES = 400 << 20
CACHES = 2  # times the last level
SHARE = 0.15  # of what is free
SMALL = 0x3C01  # a small number as bf16, as two codes and as a scale
PROMPT_FLOP = 2e10  # of one sample; a block is cut to fewer tokens beyond that


class BackboneRates:
    """Copies of a layer's matrices in one layout, and a compiled call for each."""

    def __init__(self, what: RatesOf, layout: Layout, memory: NDArray[np.uint16]) -> None:
        self.pool = shared_pool(what.threads)
        self._columns = max(columns for _, columns in what.sizes.backbone)
        self._x = Rows.zeros(self._columns)
        self._x.memory[:] = 0.5
        self._out = Rows.zeros(max(rows for rows, _ in what.sizes.backbone))
        self._shapes = what.sizes.backbone
        self._sizes = [layout.nbytes(*shape) for shape in self._shapes]
        self._layout, self._memory = layout, memory
        self._jobs = np.zeros(len(self._shapes) * self._copies(), LINEAR)
        self._place()

    def _copies(self) -> int:
        return max(1, self._memory.nbytes // sum(self._sizes))

    def _place(self) -> None:
        address = self._memory.ctypes.data
        for index, job in enumerate(self._jobs):
            rows, columns = self._shapes[index % len(self._shapes)]
            weight = Tiled(self._memory, address, rows, columns, layout=self._layout)
            fill_linear(job, weight, self._x, self._out)
            address += self._sizes[index % len(self._shapes)]

    def token(self) -> tuple[int, float]:
        """Bytes of weights and seconds of one token through all copies."""
        self._jobs["tokens"] = 1
        seconds = self._run(range(len(self._jobs)))
        return sum(self._sizes) * self._copies(), seconds

    def prompt(self) -> tuple[int, float]:
        """Floating-point operations and seconds of a block of tokens through one copy."""
        weights = sum(math.prod(shape) for shape in self._shapes)
        tokens = max(16, min(MAX_BLOCK, int(PROMPT_FLOP / 2 / weights)))
        self._jobs["tokens"] = tokens
        return 2 * weights * tokens, self._run(range(len(self._shapes)))

    def _run(self, jobs: Sequence[int]) -> float:
        run, first = multiply(), self._jobs.ctypes.data
        with self.pool.lock:
            self.pool.start()
            began = time.perf_counter()
            for index in jobs:
                run(first + index * LINEAR.itemsize, self.pool.state)
            seconds = time.perf_counter() - began
            self.pool.check()
        return seconds


def backbone_rates(what: RatesOf, free_bytes: int, cache_bytes: int) -> dict[str, BackboneRates]:
    """One for each layout, over the same memory."""
    largest = sum(BF16.nbytes(*shape) for shape in what.sizes.backbone)
    wanted = max(LEAST_BYTES, CACHES * cache_bytes)
    memory = aligned(max(largest, min(wanted, int(free_bytes * SHARE))))
    memory[:] = SMALL  # pages that were never written to would all be the same one
    return {name: BackboneRates(what, layout, memory) for name, layout in LAYOUTS.items()}
