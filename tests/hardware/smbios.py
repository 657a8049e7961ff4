"""Firmware tables as SMBIOS lays them out, for machines that are not here."""

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Module:
    """What a type 17 structure says; `configured` and `speed` in MT/s."""

    bank: str
    locator: str = "DIMM 0"
    size: int = 0x7FFF  # 32 GiB or more: said elsewhere
    bits: int = 64
    speed: int = 6000
    configured: int = 6000
    extended: int = 0  # where speed is 65535


def table(*modules, before=b"", end=True):
    """A whole table: some other structure, the modules, the end."""
    other = _structure(1, b"\0" * 23, ["a maker", "a board"])
    parts = [before, other, *map(memory_device, modules)]
    return b"".join(parts) + (_structure(127, b"", []) if end else b"")


def memory_device(module):
    """Type 17, 92 bytes, as SMBIOS 3.3 has it."""
    body = bytearray(92)
    struct.pack_into("<HHH", body, 8, module.bits + 8, module.bits, module.size)
    body[16], body[17] = 1, 2
    struct.pack_into("<H", body, 21, module.speed)
    struct.pack_into("<H", body, 32, module.configured)
    struct.pack_into("<II", body, 84, module.extended, module.extended)
    return _structure(17, bytes(body[4:]), [module.locator, module.bank])


def _structure(kind, body, texts):
    head = struct.pack("<BBH", kind, 4 + len(body), 0x1000)
    strings = b"".join(text.encode() + b"\0" for text in texts) or b"\0"
    return head + body + strings + b"\0"
