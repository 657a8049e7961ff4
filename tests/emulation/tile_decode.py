"""The AMX instructions' encodings: bytes -> which one, on which tiles, at which address.

C4 | RXB 00010 | W vvvv L pp | opcode | ModRM | SIB | displacement      all are VEX map 2, L = 0

opcode 49  pp 0 ldtilecfg m     pp 1 sttilecfg m    pp 0 C0 tilerelease    pp 3 11ttt000 tilezero
opcode 4B  pp 3 tileloadd       pp 1 tileloaddt1    pp 2 tilestored        memory by SIB: base + row * index
opcode 5E  pp 0 tdpbuud         pp 1 tdpbusd        pp 2 tdpbsud           pp 3 tdpbssd
opcode 5C  pp 2 tdpbf16ps
"""  # noqa: E501

from dataclasses import dataclass
from functools import cache

ESCAPE = 0xC4
CONFIG, MOVE, INT8, BF16 = 0x49, 0x4B, 0x5E, 0x5C
NAMES = {
    (CONFIG, 0, True): "ldtilecfg", (CONFIG, 1, True): "sttilecfg",
    (CONFIG, 0, False): "tilerelease", (CONFIG, 3, False): "tilezero",
    (MOVE, 3, True): "tileloadd", (MOVE, 1, True): "tileloaddt1", (MOVE, 2, True): "tilestored",
    (INT8, 0, False): "tdpbuud", (INT8, 1, False): "tdpbusd", (INT8, 2, False): "tdpbsud",
    (INT8, 3, False): "tdpbssd", (BF16, 2, False): "tdpbf16ps",
}  # fmt: skip
LENGTHS = (5, 6, 7, 9, 10)
SIB, RIP, NONE = 4, 5, 4  # ModRM.rm with a SIB byte; mod 0: relative to RIP; SIB.index: no index


@dataclass(frozen=True, slots=True)
class TileInstruction:
    """Registers by number; `base` is -1 for RIP, None for nothing."""

    name: str
    reg: int  # destination tile
    rm: int  # first source tile
    vvvv: int  # second source tile
    base: int | None = None
    index: int | None = None
    shift: int = 0
    displacement: int = 0


def decode(code: bytes) -> TileInstruction | None:
    """The tile instruction that these bytes are, all of them; None if they are something else."""
    if len(code) < 5 or code[0] != ESCAPE or code[1] & 0x1F != 2 or code[2] & 0x84:
        return None
    mod, reg, rm = code[4] >> 6, code[4] >> 3 & 7, code[4] & 7
    r, x, b = (~code[1] >> bit & 1 for bit in (7, 6, 5))
    name = NAMES.get((code[3], code[2] & 3, mod != 3))
    if name is None:
        return None
    if mod == 3:
        registers = reg | r << 3, rm | b << 3, ~code[2] >> 3 & 15
        return TileInstruction(name, *registers) if len(code) == 5 else None
    memory = _memory(code[4:], x, b)
    if memory is None or (memory[1] is None) != name.endswith("cfg"):
        return None
    return TileInstruction(name, reg | r << 3, 0, 0, *memory)


def _memory(tail: bytes, x: int, b: int) -> tuple[int | None, int | None, int, int] | None:
    """Base, index, shift and displacement of ModRM and what follows it."""
    mod, rm, at = tail[0] >> 6, tail[0] & 7, 1
    base: int | None = rm | b << 3
    index, shift, low = None, 0, rm
    if rm == SIB:
        if len(tail) < 2:
            return None
        at, low, shift = 2, tail[1] & 7, tail[1] >> 6
        base = low | b << 3
        index = (tail[1] >> 3 & 7) | x << 3
        index = None if index == NONE else index
    without_base = mod == 0 and low == RIP
    if without_base:
        base = None if rm == SIB else -1
    size = 4 if without_base or mod == 2 else mod
    if len(tail) != at + size:
        return None
    return base, index, shift, int.from_bytes(tail[at:], "little", signed=True)


@cache
def decode_before(code: bytes) -> TileInstruction | None:
    """The tile instruction that ends where these bytes end, if there is exactly one reading."""
    found = [decode(code[-length:]) for length in LENGTHS if length <= len(code)]
    found = [instruction for instruction in found if instruction]
    return found[0] if len(found) == 1 else None
