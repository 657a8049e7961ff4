"""Matrices in RAM as the micro-kernel reads them: bf16 tiles of 16 outputs, two inputs a line.

    tile      16 output rows over all inputs: ceil(inputs / 2) lines of 64 B
    line j    16 lanes of 4 bytes; lane r: low half w[r, 2j], high half w[r, 2j + 1]

Rows are padded to 16 and inputs to 2 with zero weights. A plane is one whole matrix of tiles; a
matrix that bf16 cannot hold exactly but must (a router in float32) is a sum of three planes, whose
8 significant bits each make float32's 24.
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201, ANN202 (compiled code: numba infers the types)

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import carray, types
from numpy.typing import NDArray

from hybrid.cpu_dense.panel import LANES, LINE_BYTES
from hybrid.cpu_dense.records import entry, record, unit_address
from hybrid.cpu_experts.arena import allocate
from hybrid.cpu_experts.native import load_u16, store_u32
from hybrid.cpu_experts.pool import Pool, parallel

TILES_PER_UNIT = 4
PACK, pack_at = record("source row_step column_step rows columns target")


@dataclass(frozen=True, slots=True)
class Tiled:
    """One matrix [rows, columns] in tiles. `memory` keeps `address` alive."""

    memory: NDArray[np.uint16]  # [planes * plane_bytes / 2] or the larger array it lies in
    address: int
    rows: int
    columns: int
    planes: int = 1

    @property
    def pairs(self) -> int:
        """Lines of a tile."""
        return (self.columns + 1) // 2


def tiled_bytes(rows: int, columns: int) -> int:
    """Size of one plane."""
    return -(-rows // LANES) * -(-columns // 2) * LINE_BYTES


def aligned(nbytes: int) -> NDArray[np.uint16]:
    """Zeroed memory for weights, on huge pages where it is large enough (arena.py)."""
    return allocate(nbytes, "the backbone's weights").view(np.uint16)


def tile(planes: list[NDArray[np.uint16]], pool: Pool) -> Tiled:
    """Repack bf16 bits [rows, columns], any strides; several planes add up to the matrix."""
    rows, columns = planes[0].shape
    size = tiled_bytes(rows, columns)
    memory = aligned(len(planes) * size)
    for index, plane in enumerate(planes):
        tile_into(memory.ctypes.data + index * size, plane, pool)
    return Tiled(memory, memory.ctypes.data, rows, columns, len(planes))


def tile_into(target: int, plane: NDArray[np.uint16], pool: Pool) -> None:
    """Repack one plane to `tiled_bytes` of zeroed memory at the address `target`."""
    job = np.zeros(1, PACK)
    job[0] = (plane.ctypes.data, *plane.strides, *plane.shape, target)
    address = unit_address("pack", pack_unit)
    with pool.lock:
        pool.start()
        pack_matrix()(job.ctypes.data, address, pool.state)


def bf16_bits(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Round float32 to bf16, half to even; a NaN stays a NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    quiet = bits | np.uint32(0x400000)
    return (np.where(np.isnan(values), quiet, rounded) >> np.uint32(16)).astype(np.uint16)


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values of bf16 bits."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def three_planes(values: NDArray[np.float32]) -> list[NDArray[np.uint16]]:
    """bf16 matrices whose sum is exactly the given float32 matrix (normal numbers)."""
    planes = []
    rest = values.astype(np.float32)
    for _ in range(3):
        planes.append(bf16_bits(rest))
        rest = rest - widened(planes[-1])
    return planes


def pack_unit(at, unit, worker):
    """Tiles unit * TILES_PER_UNIT … of a plane."""
    job = carray(pack_at(at), 1)[0]
    pairs = (job.columns + 1) // 2
    last = min((unit + 1) * TILES_PER_UNIT * LANES, job.rows)
    for row in range(unit * TILES_PER_UNIT * LANES, last):
        source = job.source + row * job.row_step
        target = job.target + row // LANES * pairs * LINE_BYTES
        for pair in range(pairs):
            bits = np.uint32(load_u16(source + 2 * pair * job.column_step, 0))
            if 2 * pair + 1 < job.columns:
                bits |= np.uint32(load_u16(source + (2 * pair + 1) * job.column_step, 0)) << 16
            store_u32(target, pair * LANES + row % LANES, np.uint32(bits))


def _pack_all(job, unit, state):
    rows = carray(pack_at(job), 1)[0].rows
    parallel(state, unit, job, -(-rows // (TILES_PER_UNIT * LANES)))


@cache
def pack_matrix() -> Any:
    """Compiled pack(record, unit address, pool state)."""
    return entry("pack-all", types.void(*[types.intp] * 3), _pack_all)
