"""The guest's memory: four levels of page tables, and buffers with nothing beside them.

    unmapped page | canaries | buffer | unmapped page     at_end=True: reading past the end faults
    unmapped page | buffer | canaries | unmapped page     at_end=False: reading before it faults

Host pages are handed to Bochs by guest-physical address and then mapped. A buffer that is only
read is mapped read-only, so that writing to it faults as well.
"""

import ctypes
import mmap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PAGE = 4096
CANARY = 0xA5
CODE_AT, HEAP_AT, STACK_AT, RETURN_AT = 1 << 32, 2 << 32, 7 << 44, 6 << 44
STACK_PAGES = 64
ROOT_TABLE = 0x1000  # guest-physical address, as CR3 wants it
PRESENT, WRITABLE = 1, 2
LEVELS = (39, 30, 21)  # address bits that index the upper three tables
HLT = 0xF4
INT3 = 0xCC


class GuestAccessError(Exception):
    """An access, done on the guest's behalf, that its page tables do not allow."""


Insert = Callable[[int, int], None]  # (guest-physical address, host address) of one page


@dataclass(frozen=True, slots=True)
class Pages:
    """Host memory that the guest sees."""

    physical: int
    view: np.ndarray  # uint8 [pages * PAGE]

    @property
    def count(self) -> int:
        return len(self.view) // PAGE


@dataclass(frozen=True, slots=True)
class Region:
    """A buffer among its canaries."""

    base: int  # address of its first page
    offset: int
    size: int
    pages: Pages

    @property
    def address(self) -> int:
        return self.base + self.offset

    @property
    def view(self) -> np.ndarray:
        return self.pages.view[self.offset : self.offset + self.size]

    @property
    def intact(self) -> bool:
        """Whether the canaries live."""
        before, after = self.pages.view[: self.offset], self.pages.view[self.offset + self.size :]
        return bool((before == CANARY).all() and (after == CANARY).all())


class Memory:
    """Page tables and what they map."""

    def __init__(self, insert: Insert) -> None:
        self._insert = insert
        self._next_physical = 0x10_0000
        self._tables: dict[int, np.ndarray] = {}  # guest-physical -> uint64 [512]
        self._host: dict[int, np.ndarray] = {}  # page number -> uint8 [PAGE]
        self._spare: dict[int, list[Pages]] = {}  # page count -> pages to use again
        self._heap, self._code = HEAP_AT, CODE_AT
        self._new_table(ROOT_TABLE)
        self.stack = self.map(STACK_AT, STACK_PAGES)
        self.map(RETURN_AT, 1).view[:] = HLT

    def map(self, address: int, count: int) -> Pages:
        """Fresh writable pages at an address."""
        pages = self._new_pages(count)
        self._map(address, pages, WRITABLE)
        return pages

    def place_code(self, nbytes: int) -> tuple[int, np.ndarray]:
        """Room for code, with an unmapped page behind it."""
        count = -(-nbytes // PAGE)
        pages, address = self._new_pages(count), self._code
        self._map(address, pages, 0)
        self._code += (count + 1) * PAGE
        pages.view[:] = INT3
        return address, pages.view[:nbytes]

    def allocate(self, nbytes: int, *, writable: bool, at_end: bool) -> Region:
        """A buffer between two unmapped pages, touching the one behind or the one before it."""
        count = max(1, -(-nbytes // PAGE))
        spare = self._spare.setdefault(count, [])
        pages = spare.pop() if spare else self._new_pages(count)
        region = Region(self._heap, count * PAGE - nbytes if at_end else 0, nbytes, pages)
        self._map(self._heap, pages, WRITABLE if writable else 0)
        self._heap += (count + 1) * PAGE
        pages.view[:] = CANARY
        return region

    def free(self, region: Region) -> None:
        """Unmap a buffer; its address is never used again."""
        for page in range(region.base, region.base + region.pages.count * PAGE, PAGE):
            self._entry(page)[(page >> 12) & 511] = 0
            del self._host[page >> 12]
        self._spare[region.pages.count].append(region.pages)

    def peek(self, address: int, nbytes: int) -> bytes:
        """At most so many bytes from an address, fewer before an unmapped page."""
        found = bytearray()
        while len(found) < nbytes and (address >> 12) in self._host:
            offset = address % PAGE
            part = self._host[address >> 12][offset : offset + nbytes - len(found)]
            found += part.tobytes()
            address += len(part)
        return bytes(found)

    def before(self, address: int, nbytes: int) -> bytes:
        """At most so many bytes that end at an address, fewer behind an unmapped page."""
        start = address - nbytes
        if start >> 12 not in self._host:
            start = address - address % PAGE
        return self.peek(start, address - start)

    def poke(self, address: int, data: np.ndarray) -> None:
        """Write uint8 [n] to pages that are mapped and writable."""
        done = 0
        while done < len(data):
            offset = (address + done) % PAGE
            part = data[done : done + PAGE - offset]
            self._host[(address + done) >> 12][offset : offset + len(part)] = part
            done += len(part)

    def fault_in(self, address: int, nbytes: int, *, write: bool) -> int | None:
        """The first address of a range that an access may not touch; None if there is none."""
        for page in range(address - address % PAGE, address + nbytes, PAGE):
            if page >> 12 not in self._host:
                return max(page, address)
            if write and not int(self._entry(page)[(page >> 12) & 511]) & WRITABLE:
                return max(page, address)
        return None

    def _new_pages(self, count: int) -> Pages:
        host = mmap.mmap(-1, count * PAGE)  # kept alive by the view
        view = np.frombuffer(host, np.uint8)
        start = ctypes.addressof(ctypes.c_char.from_buffer(host))
        pages = Pages(self._next_physical, view)
        self._next_physical += count * PAGE
        for at in range(0, count * PAGE, PAGE):
            self._insert(pages.physical + at, start + at)
        return pages

    def _new_table(self, physical: int | None = None) -> int:
        pages = self._new_pages(1)
        if physical is not None:  # the root lies where CR3 points
            self._insert(physical, pages.view.ctypes.data)
        at = pages.physical if physical is None else physical
        self._tables[at] = pages.view.view(np.uint64)
        return at

    def _map(self, address: int, pages: Pages, flags: int) -> None:
        for at in range(0, len(pages.view), PAGE):
            page = address + at
            table = self._entry(page)
            table[(page >> 12) & 511] = pages.physical + at | PRESENT | flags
            self._host[page >> 12] = pages.view[at : at + PAGE]

    def _entry(self, address: int) -> np.ndarray:
        """The lowest table for an address, made on the way down where there is none."""
        table = self._tables[ROOT_TABLE]
        for shift in LEVELS:
            index = (address >> shift) & 511
            if not table[index]:
                table[index] = self._new_table() | PRESENT | WRITABLE
            table = self._tables[int(table[index]) & ~0xFFF]
        return table
