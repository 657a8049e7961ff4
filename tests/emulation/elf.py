"""A relocatable x86-64 ELF object: its parts, and its bytes linked at an address.

    header -> section table -> sections      code, constants, symbols, relocations, names
    linked    every section that is memory at run time, one after another, relocated

Only what LLVM writes for a leaf function is known. A symbol that the object does not define, or a
relocation of another kind, is an error: these kernels call nothing.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SYMBOLS, RELOCATIONS, NO_BITS = 2, 4, 8  # section types
IN_MEMORY, EXECUTABLE = 2, 4  # section flags
UNDEFINED, RESERVED = 0, 0xFF00  # section numbers of symbols that lie in no section
R_64, R_PC32, R_PLT32 = 1, 2, 4  # relocation types
LINE = 64


class ElfError(Exception):
    """The object holds something that a leaf function has no need of."""


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    kind: int
    flags: int
    link: int
    info: int
    align: int
    size: int
    at: int  # in the file
    data: bytes


@dataclass(frozen=True, slots=True)
class Symbol:
    name: str
    section: int
    value: int  # offset in its section


@dataclass(frozen=True, slots=True)
class Relocation:
    section: int  # the one that is patched
    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass(frozen=True, slots=True)
class Elf:
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]

    @property
    def code(self) -> tuple[Section, ...]:
        """The sections that hold instructions."""
        return tuple(s for s in self.sections if s.flags & EXECUTABLE and s.size)

    @property
    def undefined(self) -> tuple[str, ...]:
        """Names that somebody else would have to provide."""
        used = {r.symbol for r in self.relocations}
        return tuple(
            s.name for i, s in enumerate(self.symbols) if s.section == UNDEFINED and i in used
        )


def read(data: bytes) -> Elf:
    """Take an ELF64 relocatable object apart."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ElfError(f"not a little-endian ELF64 object: {data[:6].hex()}")
    (table,) = struct.unpack_from("<Q", data, 0x28)
    entry, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * entry) for i in range(count)]
    sections = tuple(_section(data, header, headers[names][4]) for header in headers)
    return Elf(sections, _symbols(sections), tuple(_relocations(sections)))


def _section(data: bytes, header: tuple[int, ...], names_at: int) -> Section:
    name, kind, flags, _, at, size, link, info, align, _ = header
    content = bytes(size) if kind == NO_BITS else data[at : at + size]
    text = _text(data, names_at + name)
    return Section(text, kind, flags, link, info, align, size, at, content)


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _symbols(sections: tuple[Section, ...]) -> tuple[Symbol, ...]:
    for table in sections:
        if table.kind == SYMBOLS:
            names = sections[table.link].data
            rows = struct.iter_unpack("<IBBHQQ", table.data)
            return tuple(Symbol(_text(names, n), section, v) for n, _, _, section, v, _ in rows)
    raise ElfError("the object has no symbols")


def _relocations(sections: tuple[Section, ...]) -> list[Relocation]:
    return [
        Relocation(table.info, offset, info & 0xFFFFFFFF, info >> 32, addend)
        for table in sections
        if table.kind == RELOCATIONS
        for offset, info, addend in struct.iter_unpack("<QQq", table.data)
    ]


def link(data: bytes, place: Callable[[int], tuple[int, np.ndarray]]) -> dict[str, int]:
    """Lay an object out in memory; symbol name -> address.

    `place` gives the address of so many bytes, and those bytes to be written.
    """
    elf = read(data)
    if elf.undefined:
        raise ElfError(f"the object needs {', '.join(elf.undefined)} from elsewhere")
    blob, where = _layout(elf)
    address, memory = place(len(blob))
    addresses = [_address(symbol, where, address) for symbol in elf.symbols]
    for relocation in elf.relocations:
        if relocation.section in where:
            _patch(blob, where[relocation.section], address, relocation, addresses)
    memory[:] = np.frombuffer(bytes(blob), np.uint8)
    return {
        symbol.name: at
        for symbol, at in zip(elf.symbols, addresses, strict=True)
        if symbol.name and symbol.section in where
    }


def _layout(elf: Elf) -> tuple[bytearray, dict[int, int]]:
    """All run-time sections in one piece, and where in it each begins."""
    blob, where = bytearray(), {}
    for index, section in enumerate(elf.sections):
        if section.flags & IN_MEMORY and section.size:
            blob += bytes(-len(blob) % max(LINE, section.align))
            where[index] = len(blob)
            blob += section.data
    return blob, where


def _address(symbol: Symbol, where: dict[int, int], base: int) -> int:
    """0 for what does not lie in memory, such as the name of the source file."""
    if symbol.section == UNDEFINED or symbol.section >= RESERVED:
        return 0
    return base + where.get(symbol.section, 0) + symbol.value


def _patch(
    blob: bytearray, section_at: int, base: int, relocation: Relocation, addresses: list[int]
) -> None:
    at = section_at + relocation.offset
    target = addresses[relocation.symbol] + relocation.addend
    if relocation.kind == R_64:
        struct.pack_into("<Q", blob, at, target % 2**64)
    elif relocation.kind in (R_PC32, R_PLT32):
        struct.pack_into("<i", blob, at, target - base - at)
    else:
        raise ElfError(f"relocation type {relocation.kind} is not known")
