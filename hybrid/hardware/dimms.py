"""What the memory modules promise: channels times speed, from the tables of the firmware.

    structure   u8 type | u8 length L | u16 handle | L - 4 bytes | texts, each ended by 0 | 0
    type 17     12  u16 size, 0: empty slot     16  u8 number of the text that names the slot
                10  u16 data width, bits        17  u8 the same of the bank
                21  u16 speed, MT/s             32  u16 speed as configured, 84 and 88 u32 if 65535

(SMBIOS 3.x §7.18, §6.1.) Only root may read the tables. They are foreign data: every offset is held
against the end, nothing is trusted to end by itself. Modules that share a named channel count once;
where nothing names the channels, each module is taken to have one of its own.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LONGEST = 1 << 20  # bytes of a table that are looked at
MEMORY_DEVICE, END = 17, 127
NAMED = re.compile(r".*channel[ _-]?[a-z0-9]+", re.IGNORECASE)
WIDEST, FASTEST = 128, 100_000  # bits and MT/s that a module may claim


@dataclass(frozen=True, slots=True)
class Dimm:
    """One module that is there."""

    channel: str  # what it shares with its neighbours on the same wires
    bits: int
    mega_transfers: int  # a second, as configured if that is known

    @property
    def gb_s(self) -> float:
        """At its speed and width."""
        return self.bits / 8 * self.mega_transfers / 1e3


def promised_gb_s(system: Path) -> float | None:
    """GB/s of all channels together; None where the tables cannot be read or say nothing."""
    channels: dict[str, float] = {}
    for dimm in read_dimms(system):
        channels[dimm.channel] = max(channels.get(dimm.channel, 0.0), dimm.gb_s)
    return round(sum(channels.values()), 3) or None


def read_dimms(system: Path) -> list[Dimm]:
    """The modules that the firmware lists under /sys."""
    try:
        with (system / "firmware/dmi/tables/DMI").open("rb") as file:
            return list(parse_dimms(file.read(LONGEST)))
    except OSError:
        return []


def parse_dimms(table: bytes) -> Iterator[Dimm]:
    """Modules in a table; a damaged one ends where it stops making sense."""
    for index, (formatted, texts) in enumerate(_structures(table)):
        if formatted[0] == MEMORY_DEVICE and (dimm := _dimm(formatted, texts, index)):
            yield dimm


def _structures(table: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
    """The formatted part and the texts of each structure."""
    at = 0
    while at + 4 <= len(table):
        kind, length = table[at], table[at + 1]
        texts_at = at + length
        end = table.find(b"\0\0", texts_at)
        if length < 4 or end < 0 or kind == END:
            return
        yield table[at:texts_at], table[texts_at:end].split(b"\0")
        at = end + 2


def _dimm(formatted: bytes, texts: list[bytes], index: int) -> Dimm | None:
    if _u16(formatted, 12) in (0, None):
        return None
    bits = _u16(formatted, 10) or 64
    speed = _speed(formatted, 32, 88) or _speed(formatted, 21, 84)
    if not speed or bits > WIDEST or speed > FASTEST:
        return None
    return Dimm(_channel(formatted, texts) or f"module {index}", bits, speed)


def _speed(formatted: bytes, at: int, extended: int) -> int | None:
    found = _u16(formatted, at)
    return _number("<I", formatted, extended) if found == 0xFFFF else found


def _channel(formatted: bytes, texts: list[bytes]) -> str | None:
    for at in (17, 16):  # the bank is the likelier to name it
        number = formatted[at] if at < len(formatted) else 0
        named = texts[number - 1].decode("ascii", "replace") if 0 < number <= len(texts) else ""
        if found := NAMED.match(named):
            return found[0]
    return None


def _u16(formatted: bytes, at: int) -> int | None:
    return _number("<H", formatted, at)


def _number(kind: str, formatted: bytes, at: int) -> int | None:
    if at + struct.calcsize(kind) > len(formatted):  # an older version of the table
        return None
    return int(struct.unpack_from(kind, formatted, at)[0])
