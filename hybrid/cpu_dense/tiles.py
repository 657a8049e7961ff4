"""Matrices in RAM as the micro-kernels read them: tiles of 16 outputs, each a sequential stream.

    bf16 tile   for every 2 inputs a step of 64 B: 16 lanes of 4 bytes; lane r: low half w[r, 2j],
                high half w[r, 2j + 1]
    int8 tile   for every 32 inputs a step of 544 B: codes, 16 lanes of 1 byte for each input, then
                16 scales in bf16; w[r, i] is about code * scale (codes.py)

Rows are padded to 16 and inputs to a step with zero weights. A plane is one whole matrix; a matrix
that bf16 cannot hold exactly but must (a router in float32) is a sum of three planes, whose 8
significant bits each make float32's 24.
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201, ANN202 (compiled code: numba infers the types)

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import carray, types
from numpy.typing import NDArray

from hybrid.cpu_dense.codes import code_unit
from hybrid.cpu_dense.packing import PACK, pack_at
from hybrid.cpu_dense.panel import GROUP, GROUP_BYTES, LANES, LINE_BYTES
from hybrid.cpu_dense.records import entry, unit_address
from hybrid.cpu_experts.arena import allocate
from hybrid.cpu_experts.native import load_u16, store_u32
from hybrid.cpu_experts.pool import Pool, parallel


def pack_unit(at, unit, worker):
    """Tile `unit` of a plane in bf16."""
    job = carray(pack_at(at), 1)[0]
    pairs = (job.columns + 1) // 2
    target = job.target + unit * pairs * LINE_BYTES
    for lane in range(min(LANES, job.rows - unit * LANES)):
        source = job.source + (unit * LANES + lane) * job.row_step
        for pair in range(pairs):
            bits = np.uint32(load_u16(source + 2 * pair * job.column_step, 0))
            if 2 * pair + 1 < job.columns:
                bits |= np.uint32(load_u16(source + (2 * pair + 1) * job.column_step, 0)) << 16
            store_u32(target, pair * LANES + lane, np.uint32(bits))


@dataclass(frozen=True, slots=True)
class Layout:
    """One of the two forms above."""

    panel: str  # its micro-kernel (paneling.py)
    pack: str
    pack_unit: Callable[..., Any]
    step_inputs: int
    step_bytes: int
    part: int  # steps of 8 KiB or less, which stay in the first cache

    def steps(self, columns: int) -> int:
        """Steps of a tile."""
        return -(-columns // self.step_inputs)

    def nbytes(self, rows: int, columns: int) -> int:
        """Size of one plane."""
        return -(-rows // LANES) * self.steps(columns) * self.step_bytes


BF16 = Layout("paired", "pack", pack_unit, 2, LINE_BYTES, 128)
INT8 = Layout("coded", "code", code_unit, GROUP, GROUP_BYTES, 8)


@dataclass(frozen=True, slots=True)
class Tiled:
    """One matrix [rows, columns] in tiles. `memory` keeps `address` alive."""

    memory: NDArray[np.uint16]  # the planes, or the larger array they lie in
    address: int
    rows: int
    columns: int
    planes: int = 1
    layout: Layout = BF16


def aligned(nbytes: int) -> NDArray[np.uint16]:
    """Zeroed memory for weights, on huge pages where it is large enough (arena.py)."""
    return allocate(nbytes, "the backbone's weights").view(np.uint16)


def tile(planes: list[NDArray[np.uint16]], pool: Pool, layout: Layout = BF16) -> Tiled:
    """Repack bf16 bits [rows, columns], any strides; several planes add up to the matrix."""
    rows, columns = planes[0].shape
    size = layout.nbytes(rows, columns)
    memory = aligned(len(planes) * size)
    for index, plane in enumerate(planes):
        tile_into(memory.ctypes.data + index * size, plane, pool, layout)
    return Tiled(memory, memory.ctypes.data, rows, columns, len(planes), layout)


def tile_into(target: int, plane: NDArray[np.uint16], pool: Pool, layout: Layout) -> None:
    """Repack one plane to `layout.nbytes` of zeroed memory at the address `target`."""
    job = np.zeros(1, PACK)
    job[0] = (plane.ctypes.data, *plane.strides, *plane.shape, target)
    address = unit_address(layout.pack, layout.pack_unit)
    with pool.lock:
        pool.start()
        pack_matrix()(job.ctypes.data, address, pool.state)
        pool.check()


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


def _pack_all(job, unit, state):
    rows = carray(pack_at(job), 1)[0].rows
    parallel(state, unit, job, (rows + LANES - 1) // LANES)


@cache
def pack_matrix() -> Any:
    """Compiled pack(record, unit address, pool state)."""
    return entry("pack-all", types.void(*[types.intp] * 3), _pack_all)
