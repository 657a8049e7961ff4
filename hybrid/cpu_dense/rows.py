"""Rows of float32 on cache lines: what one phase leaves for the next."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybrid.cpu_dense.panel import GROUP, LANES

MAX_BLOCK = 512  # tokens of a call


@dataclass(frozen=True, slots=True)
class Rows:
    """[count, row] float32, rows at least `padded(width)`; what no phase writes stays zero.

    A row is an odd number of cache lines: rows a multiple of 4 KiB apart, as 7168 float32 are,
    would share one set of the first cache, and six tokens' inputs would evict each other.
    """

    memory: NDArray[np.float32]
    row_bytes: int

    @classmethod
    def zeros(cls, width: int, count: int = MAX_BLOCK) -> "Rows":
        """Reserve rows; their pages are touched only as far as blocks reach."""
        row = (padded(width) // LANES | 1) * LANES
        memory = np.zeros(count * row + LANES, np.float32)
        skip = -memory.ctypes.data % 64 // 4
        return cls(memory[skip : skip + count * row].reshape(count, row), row * 4)

    @property
    def address(self) -> int:
        """Where the first row starts."""
        return int(self.memory.ctypes.data)


def padded(count: int) -> int:
    """`count` rounded up to groups of inputs, which are also whole tiles of outputs."""
    return -(-count // GROUP) * GROUP
