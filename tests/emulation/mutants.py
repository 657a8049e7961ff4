"""The kernels' own objects with one instruction changed: does the comparison notice?

Bytes are patched, so everything but the one fault is the real kernel:

    operation    vpaddd becomes vpsubd, vaddps vmulps, vpdpbusd vpdpwssd, ...: one other byte
    immediate    a shift by one bit less
    distance     a vector read or written four bytes further on

Left alone are prefetches, constants (all their elements are alike) and what steers loops.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.emulation import elf

VEX2, VEX3, EVEX = 0xC5, 0xC4, 0x62
OPCODE_AT = {VEX2: 2, VEX3: 3, EVEX: 4}
SWAPS = {  # mnemonic -> opcode and what takes its place
    "vpaddd": (0xFE, 0xFA),
    "vpsubd": (0xFA, 0xFE),
    "vpaddw": (0xFD, 0xF9),
    "vpsubb": (0xF8, 0xFC),
    "vmulps": (0x59, 0x58),
    "vaddps": (0x58, 0x59),
    "vpmaddwd": (0xF5, 0xE5),  # vpmulhw
    "vpmaddubsw": (0x04, 0x0B),  # vpmulhrsw
    "vpdpbusd": (0x50, 0x52),  # vpdpwssd
    "vpand": (0xDB, 0xEB),  # vpor
    "vpandd": (0xDB, 0xEB),
    "vpandq": (0xDB, 0xEB),
    "vcvtdq2ps": (0x5B, 0x51),  # vsqrtps
    "tdpbssd": (0x5E, 0x5C),  # a product of floats: undefined here
}
SHIFTS = {"vpsrlw", "vpsrld", "vpslld", "vpsllw"}
STEP = 4  # bytes


@dataclass(frozen=True, slots=True)
class Mutant:
    what: str
    data: bytes


def mutants(data: bytes) -> list[Mutant]:
    """Every object that differs from this one in one instruction, in the ways above."""
    return [mutant for section in elf.read(data).code for mutant in _of_section(data, section)]


def _of_section(data: bytes, section: elf.Section) -> Iterator[Mutant]:
    import iced_x86 as iced

    formatter = iced.Formatter(iced.FormatterSyntax.INTEL)
    decoder = iced.Decoder(64, section.data)
    for it in decoder:
        name = formatter.format_mnemonic(it)
        where = f"{it.ip:#x} {formatter.format(it)}"
        at = section.at + it.ip
        constants = decoder.get_constant_offsets(it)
        if name in SWAPS:
            opcode = at + OPCODE_AT[data[at]]
            old, new = SWAPS[name]
            assert data[opcode] == old, where
            yield Mutant(f"{where}: another operation", _patched(data, opcode, bytes([new])))
        if name in SHIFTS and constants.has_immediate:
            place = at + constants.immediate_offset
            yield Mutant(f"{where}: less", _patched(data, place, bytes([data[place] - 1])))
        if _moves_a_vector(it, name) and constants.has_displacement:
            yield Mutant(f"{where}: further", _further(data, at, it, constants))


def _moves_a_vector(it: Any, name: str) -> bool:
    return name[0] in "vt" and not it.is_ip_rel_memory_operand and not name.startswith("vzero")


def _further(data: bytes, at: int, it: Any, constants: Any) -> bytes:
    """The memory operand's distance changed by four bytes, or by one unit of EVEX's short form."""
    place, size = at + constants.displacement_offset, constants.displacement_size
    short = size == 1
    step = 1 if short and data[at] == EVEX else STEP
    value = int.from_bytes(data[place : place + size], "little", signed=True)
    value = value + step if value + step < 1 << (8 * size - 1) else value - step
    return _patched(data, place, value.to_bytes(size, "little", signed=True))


def _patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]
