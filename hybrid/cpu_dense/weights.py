"""Checkpoint tensors as the kernels want them: tiles of bf16 or int8, float32 vectors, a table.

All of it is copied: a checkpoint's file may be gone, or shorter, while the model runs.

A matrix that is stored in float32 or float16 is rounded to bf16, half to even, and every matrix on
to int8 codes if asked for. The router alone is kept exactly (tiles.py), because its rounding picks
other experts; norms stay float32 and the embedding table is kept as stored.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hybrid.cpu_dense.rows import padded
from hybrid.cpu_dense.tiles import (
    BF16,
    INT8,
    Tiled,
    aligned,
    bf16_bits,
    three_planes,
    tile,
    tile_into,
    widened,
)
from hybrid.cpu_experts.arena import allocate
from hybrid.cpu_experts.pool import Pool
from hybrid.errors import ConfigError
from hybrid.progress import Progress, ProgressSink

LAYOUTS = {"bf16": BF16, "int8": INT8}


class Tensors(Protocol):
    """What is asked of a checkpoint: `hybrid.checkpoint.Checkpoint` is one."""

    def tensor(self, name: str) -> NDArray[Any]:
        """The values; BF16 as uint16 bits."""


class Weights:
    """Reads by name, checks the shape, converts, and reports bytes."""

    def __init__(
        self, tensors: Tensors, total: int, pool: Pool, progress: ProgressSink, weights: str
    ) -> None:
        if weights not in LAYOUTS:
            raise ConfigError(f"backbone weights are {weights!r}; choose {' or '.join(LAYOUTS)}")
        self.layout = LAYOUTS[weights]
        self.pool = pool
        self._tensors = tensors
        self._total = total
        self._done = 0
        self._progress = progress

    def read(self, name: str, *shape: int) -> NDArray[Any]:
        """A view as stored; raises ConfigError if its shape is not what config.json implies."""
        values = self._tensors.tensor(name)
        if values.shape != shape:
            raise ConfigError(f"{name} is {list(values.shape)}; config.json implies {list(shape)}")
        self._done += values.nbytes
        self._progress(Progress("weights", self._done, max(self._total, self._done), "bytes"))
        return values

    def vector(self, name: str, size: int) -> NDArray[np.float32]:
        """A small vector in float32, a copy."""
        values = self.read(name, size)
        return widened(values) if values.dtype == np.uint16 else values.astype(np.float32)

    def table(self, name: str, rows: int, columns: int) -> NDArray[Any]:
        """A matrix as stored whose rows are looked up, a copy."""
        values = self.read(name, rows, columns)
        memory = allocate(values.nbytes, "the embedding table").view(values.dtype)
        table = memory.reshape(values.shape)
        table[:] = values
        return table

    def bits(self, name: str, rows: int, columns: int) -> NDArray[np.uint16]:
        """A matrix as bf16 bits, rounded if it is stored in another type."""
        values = self.read(name, rows, columns)
        return values if values.dtype == np.uint16 else bf16_bits(values)

    def matrix(self, name: str, rows: int, columns: int) -> Tiled:
        """A matrix in tiles."""
        return tile([self.bits(name, rows, columns)], self.pool, self.layout)

    def exact_matrix(self, name: str, rows: int, columns: int) -> Tiled:
        """A matrix in tiles of bf16 without rounding, whatever its type."""
        values = self.read(name, rows, columns)
        planes = [values] if values.dtype == np.uint16 else three_planes(values)
        return tile(planes, self.pool)

    def stacked(self, parts: Sequence[tuple[str, int]], columns: int) -> Tiled:
        """Matrices of the same input above one another, each padded to whole groups."""
        sizes = [self.layout.nbytes(padded(rows), columns) for _, rows in parts]
        memory = aligned(sum(sizes))
        address = memory.ctypes.data
        for (name, rows), size in zip(parts, sizes, strict=True):
            tile_into(address, self.bits(name, rows, columns), self.pool, self.layout)
            address += size
        rows = sum(padded(rows) for _, rows in parts)
        return Tiled(memory, memory.ctypes.data, rows, columns, layout=self.layout)

    def per_head(self, matrices: Sequence[NDArray[np.uint16]]) -> Tiled:
        """Equal matrices, one plane each; rows and columns are those of one."""
        rows, columns = matrices[0].shape
        size = self.layout.nbytes(rows, columns)
        memory = aligned(len(matrices) * size)
        for index, matrix in enumerate(matrices):
            tile_into(memory.ctypes.data + index * size, matrix, self.pool, self.layout)
        return Tiled(memory, memory.ctypes.data, rows, columns, layout=self.layout)
