"""RAM for records: one arena of slots on whole pages, and which of them are free.

Records do not lie in the order of layers or experts. A slot that a file was read into becomes the
record's place, and the one it left is read into next: nothing is copied within RAM. On a machine
with several NUMA nodes a slot is spread over them by rows (cpu_experts/shards.py).
"""

import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hybrid.cache.source import PAGE, RecordSource
from hybrid.cpu_experts.cores import Share
from hybrid.cpu_experts.record import RecordShape
from hybrid.cpu_experts.shards import GATE_BLOCKS, Shard, allocate

Bytes = NDArray[np.uint8]


class HostSlots:
    """`count` slots; the thread that runs the model takes them and gives them back."""

    def __init__(self, shape: RecordShape, count: int, shares: Sequence[Share]) -> None:
        self.shape = shape
        self.count = count
        self.shards = allocate(shape, count, shares, align=PAGE)
        self.reclaim(())
        self._landing = threading.local()  # a record's memory for each thread that splits them

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return len(self._free)

    def take(self) -> int | None:
        """A free slot, which is the caller's from now on; None if there is none."""
        if not self._free:
            return None
        slot = self._free.pop()
        self._taken[slot] = 1
        return slot

    def give(self, slot: int) -> None:
        """The slot is free again. Nobody may be reading, writing or computing from it."""
        assert self._taken[slot], f"slot {slot} is free already"
        self._taken[slot] = 0
        self._free.append(slot)

    def reclaim(self, used: Iterable[int]) -> None:
        """All slots but the used ones are free."""
        self._taken = bytearray(self.count)
        for slot in used:
            self._taken[slot] = 1
        self._free = [slot for slot in range(self.count - 1, -1, -1) if not self._taken[slot]]

    def pull(self, source: RecordSource, layer: int, expert: int, slot: int) -> int:
        """Read a record into a slot, from any thread; returns the bytes read."""
        if len(self.shards) == 1:
            return source.read(layer, expert, self.shards[0].records[slot])
        record = getattr(self._landing, "record", None)
        if record is None:
            record = self._landing.record = _page_aligned(self.shape.nbytes)
        nbytes = source.read(layer, expert, record)
        self.fill(slot, record)
        return nbytes

    def fill(self, slot: int, record: Bytes) -> None:
        """Copy a whole record into a slot."""
        for at, piece in self.pieces(slot):
            np.copyto(piece, record[at : at + len(piece)])

    def copy_out(self, slot: int, record: Bytes) -> None:
        """Copy a slot's record to the first bytes of `record`."""
        for at, piece in self.pieces(slot):
            np.copyto(record[at : at + len(piece)], piece)

    def pieces(self, slot: int) -> Iterator[tuple[int, Bytes]]:
        """The parts of a slot with their offsets in the record."""
        for shard in self.shards:
            row = shard.records[slot]
            yield from _parts(self.shape, shard, row)


def _parts(shape: RecordShape, shard: Shard, row: Bytes) -> Iterator[tuple[int, Bytes]]:
    gates, block = len(shard.gates), GATE_BLOCKS * shape.gate_block_bytes
    down_at, downs = shard.down_at(shape), len(shard.downs) * shape.down_block_bytes
    yield shard.gates.start * block, row[: gates * block]
    at = shape.down_offset + shard.downs.start * shape.down_block_bytes
    yield at, row[down_at : down_at + downs]


def _page_aligned(nbytes: int) -> Bytes:
    """Memory for one record that direct I/O accepts."""
    room = (nbytes + PAGE - 1) // PAGE * PAGE
    memory = np.empty(room + PAGE, np.uint8)
    skip = -memory.ctypes.data % PAGE
    return memory[skip : skip + room]
