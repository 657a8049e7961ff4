"""Rows of float32 on cache lines: what one phase leaves for the next."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybrid.cpu_dense.panel import LANES

MAX_BLOCK = 512  # tokens of a block


@dataclass(frozen=True, slots=True)
class Rows:
    """[count, padded width] float32; columns that no phase writes stay zero."""

    memory: NDArray[np.float32]
    row_bytes: int

    @classmethod
    def zeros(cls, width: int, count: int = MAX_BLOCK) -> "Rows":
        """Reserve rows; their pages are touched only as far as blocks reach."""
        row = padded(width)
        memory = np.zeros(count * row + LANES, np.float32)
        skip = -memory.ctypes.data % 64 // 4
        return cls(memory[skip : skip + count * row].reshape(count, row), row * 4)

    @property
    def address(self) -> int:
        """Where the first row starts."""
        return int(self.memory.ctypes.data)


def padded(count: int) -> int:
    """`count` rounded up to whole tiles, which are also cache lines of float32."""
    return -(-count // LANES) * LANES
