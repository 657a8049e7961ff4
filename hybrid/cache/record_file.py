"""The record file: every routed expert of a model, ready to be read into memory as it is.

    page 0           head      112 bytes little endian, then zeros
    page 1 ...       table     u64 xxh3_64 of each record, zeros up to a page
    data offset ...  records   layer by layer, expert by expert, each on pages of its own

    head    0  8s   magic, "KLRECORD"           48  u64  bytes of a record
            8  u32  version of this format      56  u64  stride: bytes of a record's pages
           12  u32  hidden                      64  u64  data offset: where record 0 starts
           16  u32  intermediate                72  u64  bytes of the file
           20  u32  first layer with experts    80  16s  fingerprint of the checkpoint
           24  u32  layers with experts         96  u64  layout of a record: LAYOUT
           28  u32  experts of a layer         104  u64  xxh3_64 of head and table, this field as 0
           32  16s  zeros

A file is foreign data: every number is held against the others and against the size of the file
before it is used, so that a head can make nobody read or allocate more than the file has.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from hybrid.cache.direct_io import open_regular
from hybrid.cache.source import PAGE, slot_bytes
from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import CheckpointError, ConfigError

DEFAULT_NAME = "experts.records"
MAGIC = b"KLRECORD"
VERSION = 1
FINGERPRINT_BYTES = 16
MAX_LAYERS = 4096
MAX_RECORDS = 1 << 20  # as many experts as config.json may announce; the table is 8 MB then
MEND = "run `kimi-local prepare` on the model to mend it"
# xxh3_64 of the record that repacking makes of a fixed small expert. A test recomputes it: whoever
# changes the layout of a record finds it failing and puts the new value here, so that files of the
# old one are refused.
LAYOUT = 0x12575D1856F33535
_HEAD = struct.Struct("<8s6I16x4Q16s2Q")
ANEW = "run `kimi-local prepare --force` on the model to write it anew"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a record file holds. Sizes and places follow from it."""

    shape: RecordShape
    first_layer: int
    layers: int
    experts: int  # of each layer
    fingerprint: bytes  # of the checkpoint's routed experts, 16 bytes

    @property
    def records(self) -> int:
        """How many there are."""
        return self.layers * self.experts

    @property
    def stride(self) -> int:
        """From one record to the next."""
        return slot_bytes(self.shape.nbytes)

    @property
    def data_offset(self) -> int:
        """Where the first record starts."""
        return PAGE + slot_bytes(8 * self.records)

    @property
    def nbytes(self) -> int:
        """The whole file."""
        return self.data_offset + self.records * self.stride

    def index(self, layer: int, expert: int) -> int:
        """The number of a record; raises CheckpointError for one that is not there."""
        row = layer - self.first_layer
        if not (0 <= row < self.layers and 0 <= expert < self.experts):
            raise CheckpointError(
                f"there is no expert {expert} of layer {layer}; layers {self.first_layer} ... "
                f"{self.first_layer + self.layers - 1} have {self.experts} each"
            )
        return row * self.experts + expert

    def place(self, index: int) -> tuple[int, int]:
        """Layer and expert of a record."""
        row, expert = divmod(index, self.experts)
        return self.first_layer + row, expert

    def offset(self, index: int) -> int:
        """Where a record starts in the file."""
        return self.data_offset + index * self.stride


@dataclass(frozen=True, slots=True)
class RecordFile:
    """A record file whose head and table have been read and checked; no file is open."""

    path: Path
    contents: Contents
    checksums: NDArray[np.uint64]  # [records] xxh3_64

    @classmethod
    def open(cls, path: Path | str) -> "RecordFile":
        """Read and check head and table; raises CheckpointError in one line."""
        path = Path(path)
        try:
            fd = open_regular(path)
            try:
                return cls.read(fd, path)
            finally:
                os.close(fd)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from None

    @classmethod
    def read(cls, fd: int, path: Path) -> "RecordFile":
        """Read and check head and table of an open file; raises CheckpointError, OSError."""
        contents, own = parse_head(os.pread(fd, PAGE, 0), path, MAGIC)
        size = os.fstat(fd).st_size
        if size != contents.nbytes:
            raise CheckpointError(
                f"{path} has {size} bytes; its head speaks of {contents.nbytes}; copy it again, "
                f"or {ANEW}"
            )
        checksums = read_table(fd, contents)
        if own != _checksum(contents, checksums):
            raise CheckpointError(f"{path}: head or table is damaged (checksum); {ANEW}")
        return cls(path, contents, checksums)


def parse_head(page: bytes, path: Path, magic: bytes) -> tuple[Contents, int]:
    """Contents and checksum that the first page of a file announces; nothing else is read.

    Raises CheckpointError for another format, version or layout and for numbers that do not fit.
    """
    if len(page) < PAGE or not page.startswith(magic):
        raise CheckpointError(f"{path} is not a record file; give another path")
    _, version, *sizes, nbytes, stride, start, total, mark, layout, own = _HEAD.unpack_from(page)
    if (version, layout) != (VERSION, LAYOUT):
        raise CheckpointError(
            f"{path} was written by another version of kimi-local (format {version}, layout "
            f"{layout:016x}; this one reads {VERSION}, {LAYOUT:016x}); {ANEW}"
        )
    contents = _contents(sizes, mark)
    if contents is None or _places(contents) != (nbytes, stride, start, total):
        raise CheckpointError(f"{path}: the head holds impossible numbers; {ANEW}")
    return contents, own


def _contents(sizes: Sequence[int], mark: bytes) -> Contents | None:
    hidden, intermediate, first_layer, layers, experts = sizes
    if first_layer > MAX_LAYERS or not 0 < layers <= MAX_LAYERS:
        return None
    if not 0 < experts <= MAX_RECORDS // layers:
        return None
    try:
        shape = RecordShape(hidden, intermediate)
    except ConfigError:
        return None
    return Contents(shape, first_layer, layers, experts, mark)


def _places(contents: Contents) -> tuple[int, int, int, int]:
    shape = contents.shape
    return shape.nbytes, contents.stride, contents.data_offset, contents.nbytes


def read_table(fd: int, contents: Contents) -> NDArray[np.uint64]:
    """Checksums [records]; zeros where the file ends early."""
    table = np.zeros(contents.records, "<u8")  # [records]
    view, at = table.data.cast("B"), 0
    while count := os.preadv(fd, [view[at:]], PAGE + at):
        at += count
    return table.astype(np.uint64, copy=False)


def head_pages(contents: Contents, checksums: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Head and table, ready to be written to the start of a file: data_offset bytes."""
    pages = np.zeros(contents.data_offset, np.uint8)
    own = _checksum(contents, checksums)
    pages[: _HEAD.size] = np.frombuffer(pack_head(contents, MAGIC, own), np.uint8)
    pages[PAGE : PAGE + 8 * contents.records] = checksums.astype("<u8", copy=False).view(np.uint8)
    return pages


def pack_head(contents: Contents, magic: bytes, own: int) -> bytes:
    """The fields of the head; `own` is the checksum over head and table."""
    shape = contents.shape
    return _HEAD.pack(
        magic,
        VERSION,
        shape.hidden,
        shape.intermediate,
        contents.first_layer,
        contents.layers,
        contents.experts,
        *_places(contents),
        contents.fingerprint,
        LAYOUT,
        own,
    )


def _checksum(contents: Contents, checksums: NDArray[np.uint64]) -> int:
    hasher = xxhash.xxh3_64(pack_head(contents, MAGIC, 0))
    hasher.update(checksums.astype("<u8", copy=False).data)
    return hasher.intdigest()


def checksum(record: NDArray[np.uint8]) -> int:
    """What the table holds for a record; computed without the GIL."""
    return xxhash.xxh3_64_intdigest(record.data)


def require_match(path: Path, found: Contents, want: Contents) -> None:
    """Raise CheckpointError if a file holds other records than the model needs."""
    if replace(found, fingerprint=want.fingerprint) != want:
        raise CheckpointError(
            f"{path} holds {_sizes(found)}; the model has {_sizes(want)}; it belongs to another "
            f"model: {ANEW}, or give another path"
        )
    if found.fingerprint != want.fingerprint:
        raise CheckpointError(
            f"{path} was prepared from other weights of the same sizes; {ANEW}, or give another "
            "path"
        )


def _sizes(contents: Contents) -> str:
    shape = contents.shape
    return (
        f"{contents.experts} experts {shape.hidden} x {shape.intermediate} in each of the layers "
        f"{contents.first_layer} ... {contents.first_layer + contents.layers - 1}"
    )
