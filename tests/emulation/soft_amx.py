"""AMX in numpy: runs the tile instructions on which the emulated CPU stops as undefined.

Bochs has no AMX in the Python build. Here the tile configuration, loads, stores and dot products
are done from the descriptions in Intel's Software Developer's Manual, and execution goes on
behind the instruction. Not modelled: a start row other than 0, the kernel's permission, FP16.
Illegal use stays undefined, so the call ends with #UD.

    tile    16 rows x 64 bytes; its configured rows and bytes a row may be fewer
    B tile  row k holds inputs 4k ... 4k+3 of its columns, 4 bytes a column
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.emulation.machine import Machine
from tests.emulation.memory import GuestAccessError
from tests.emulation.tile_decode import LENGTHS, TileInstruction, decode_before

TILES, ROWS, ROW_BYTES = 8, 16, 64
CONFIG_BYTES = 64
REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
             "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")  # fmt: skip
SIGNS = {"tdpbuud": "uu", "tdpbusd": "ui", "tdpbsud": "iu", "tdpbssd": "ii"}


class SoftAmx:
    """The tile registers; an instance is a `Trap` of a `Machine`."""

    def __init__(self) -> None:
        self.release()

    def __call__(self, machine: Machine, cpu: Any) -> str | None:
        """Run the instruction that ends at RIP; None if it is not a legal tile instruction."""
        instruction = decode_before(machine.memory.before(cpu.rip, LENGTHS[-1]))
        if instruction is None or not self._run(machine, cpu, instruction):
            return None
        return instruction.name

    @property
    def in_use(self) -> bool:
        """Whether a configuration is loaded: a kernel should leave none behind."""
        return self._palette != 0

    def release(self) -> bool:
        """The state at power-on: no configuration, tiles zero."""
        self._palette = 0
        self._rows, self._row_bytes = [0] * TILES, [0] * TILES
        self._tiles = np.zeros((TILES, ROWS, ROW_BYTES), np.uint8)
        return True

    def _run(self, machine: Machine, cpu: Any, it: TileInstruction) -> bool:
        if it.name == "tilerelease":
            return self.release()
        if it.name == "ldtilecfg":
            return self._configure(_read(machine, _address(cpu, it), CONFIG_BYTES))
        if it.name == "sttilecfg":
            return _write(machine, _address(cpu, it), self._configuration())
        if not self._palette or it.reg >= TILES or not self._rows[it.reg]:
            return False
        if it.name == "tilezero":
            self._tiles[it.reg] = 0
            return it.rm == 0
        if it.name == "tilestored":
            return self._store(machine, cpu, it)
        if it.name.startswith("tileload"):
            return self._load(machine, cpu, it)
        return self._dot(it, _bf16_dot if it.name == "tdpbf16ps" else _int8_dot(SIGNS[it.name]))

    def _configure(self, config: np.ndarray) -> bool:
        """Palette | start row | 14 zeros | bytes a row, 16 x u16 | rows, 16 x u8."""
        self.release()
        if not config[0]:
            return True
        row_bytes, rows = config[16:48].view(np.uint16), config[48:64]
        shapes = zip(rows.tolist(), row_bytes.tolist(), strict=True)
        legal = all(r <= ROWS and b <= ROW_BYTES and (r == 0) == (b == 0) for r, b in shapes)
        unused = config[1:16].any() or row_bytes[TILES:].any() or rows[TILES:].any()
        if config[0] != 1 or not legal or unused:
            return False
        self._palette = 1
        self._rows, self._row_bytes = rows[:TILES].tolist(), row_bytes[:TILES].tolist()
        return True

    def _configuration(self) -> np.ndarray:
        config = np.zeros(CONFIG_BYTES, np.uint8)
        config[0] = self._palette
        config[16:32].view(np.uint16)[:] = self._row_bytes
        config[48:56] = self._rows
        return config

    def _load(self, machine: Machine, cpu: Any, it: TileInstruction) -> bool:
        rows, width = self._rows[it.reg], self._row_bytes[it.reg]
        self._tiles[it.reg] = 0
        if _stride(cpu, it) == width:
            data = _read(machine, _address(cpu, it), rows * width)
            self._tiles[it.reg, :rows, :width] = data.reshape(rows, width)
            return True
        for row in range(rows):
            self._tiles[it.reg, row, :width] = _read(machine, _address(cpu, it, row), width)
        return True

    def _store(self, machine: Machine, cpu: Any, it: TileInstruction) -> bool:
        rows, width = self._rows[it.reg], self._row_bytes[it.reg]
        tile = self._tiles[it.reg, :rows, :width]
        if _stride(cpu, it) == width:
            return _write(machine, _address(cpu, it), tile.reshape(-1))
        return all(_write(machine, _address(cpu, it, row), tile[row]) for row in range(rows))

    def _dot(self, it: TileInstruction, product: Callable[..., np.ndarray]) -> bool:
        """C [m, n] += A [m, 4 k] x B [k, n, 4], 32-bit sums; B's layout as drawn above."""
        c, a, b = it.reg, it.rm, it.vvvv
        if max(a, b) >= TILES or len({a, b, c}) < 3:
            return False
        m, n, k = self._rows[c], self._row_bytes[c], self._rows[b]
        shapes = (self._rows[a], self._row_bytes[a], self._row_bytes[b])
        if shapes != (m, 4 * k, n) or not k or n % 4:
            return False
        left = np.ascontiguousarray(self._tiles[a, :m, : 4 * k]).reshape(m, k, 4)
        right = np.ascontiguousarray(self._tiles[b, :k, :n]).reshape(k, n // 4, 4)
        total = product(np.ascontiguousarray(self._tiles[c, :m, :n]), left, right)
        self._tiles[c] = 0
        self._tiles[c, :m, :n] = np.ascontiguousarray(total).view(np.uint8).reshape(m, n)
        return True


def _int8_dot(signs: str) -> Callable[..., np.ndarray]:
    def product(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        left, right = a.view(f"{signs[0]}1").astype(np.int64), b.view(f"{signs[1]}1")
        total = np.einsum("mki,kni->mn", left, right.astype(np.int64))
        return (c.view(np.int32) + total).astype(np.uint64).astype(np.uint32)  # wraps

    return product


def _bf16_dot(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Even and odd inputs in two chains; denormals count as zero; sums rounded to nearest."""
    left, right = _widened(a.view(np.uint16)), _widened(b.view(np.uint16))
    total = np.zeros((left.shape[0], right.shape[1], 2), np.float32)
    for k in range(left.shape[1]):  # a product of two bf16 is exact, so adding it is fusing it
        total = _flushed(total + left[:, None, k] * right[None, k])
    pair = _flushed(total[..., 0] + total[..., 1])
    return _flushed(_flushed(c.view(np.float32).copy()) + pair)


def _widened(bits: np.ndarray) -> np.ndarray:
    return _flushed((bits.astype(np.uint32) << 16).view(np.float32))


def _flushed(x: np.ndarray) -> np.ndarray:
    """Denormals become zeros of their sign; in place."""
    bits = x.view(np.uint32)
    bits[(bits & 0x7F800000) == 0] &= np.uint32(0x80000000)
    return x


def _address(cpu: Any, it: TileInstruction, row: int = 0) -> int:
    base = cpu.rip if it.base == -1 else 0
    if it.base is not None and it.base >= 0:
        base = getattr(cpu, REGISTERS[it.base])
    return (base + it.displacement + row * _stride(cpu, it)) % 2**64


def _stride(cpu: Any, it: TileInstruction) -> int:
    return 0 if it.index is None else getattr(cpu, REGISTERS[it.index]) << it.shift


def _read(machine: Machine, address: int, nbytes: int) -> np.ndarray:
    _check(machine, address, nbytes, write=False)
    return np.frombuffer(machine.memory.peek(address, nbytes), np.uint8)


def _write(machine: Machine, address: int, data: np.ndarray) -> bool:
    _check(machine, address, len(data), write=True)
    machine.memory.poke(address, data)
    return True


def _check(machine: Machine, address: int, nbytes: int, *, write: bool) -> None:
    bad = machine.memory.fault_in(address, nbytes, write=write)
    if bad is not None:
        raise GuestAccessError(f"tile {'write to' if write else 'read of'} {bad:#x}")
