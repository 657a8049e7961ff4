"""Records from the published shards: six tensors read past the page cache and repacked on the way.

    shard     ..|gate packed|gate scale|..|up packed|..     any order, any alignment
    staging   |pages around them, neighbours in one read|   one per thread, the size of a record
    target    |gate 0|up 0|gate 1|...                       the record (cpu_experts/record.py)

What a machine does that has not prepared a record file: the same bytes from the disk, and the
repacking besides. Shards carry no checksums. So a file that was written to since it was opened is
an error, told by its size and its time of writing; its ctime would also tell of a file that was
merely removed or renamed, which harms nobody. Files are read, not mapped: one that is cut short is
an error too, where a mapping would end the process.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybrid.cache.direct_io import PagedFile, pages
from hybrid.cache.source import PAGE, slot_bytes
from hybrid.checkpoint import Checkpoint
from hybrid.config import TextConfig
from hybrid.cpu_experts.record import GROUP, ROWS, RecordShape
from hybrid.cpu_experts.repack import repack
from hybrid.errors import CheckpointError
from hybrid.model_files import open_model_file

PARTS = tuple(
    f"{projection}_proj.weight_{kind}"
    for projection in ("gate", "up", "down")
    for kind in ("packed", "scale")
)
ITEMS = (4, 2) * 3  # bytes of a word, of a scale
GAP = 64 << 10  # bytes that are read along rather than asked for the next tensor separately


@dataclass(slots=True)
class Span:
    """Pages of one file that are read at once, and where in the staging memory they go."""

    file: int
    start: int  # in the file, a page
    end: int  # in the file, where the last tensor ends
    at: int  # in the staging memory, a page


class ShardSource:
    """A RecordSource over the shards of a checkpoint. `direct`: all go past the page cache."""

    kind = "shards"

    def __init__(self, model_dir: Path | str, text: TextConfig, checkpoint: Checkpoint) -> None:
        """Open the shards that hold routed experts; the checkpoint may be closed afterwards.

        Raises CheckpointError for a shard that cannot be opened.
        """
        self._shape = RecordShape.of(text)
        self._first_layer, self._experts = text.first_k_dense_replace, text.n_routed_experts
        self._sizes = tensor_sizes(self._shape)
        self._own = threading.local()
        self._files: list[PagedFile] = []
        names = self._find(text, checkpoint)
        try:
            for name in names:
                self._files.append(_open(Path(model_dir), name))
            self._stamps = [file.stamp() for file in self._files]
        except BaseException:
            self.close()
            raise

    def _find(self, text: TextConfig, checkpoint: Checkpoint) -> list[str]:
        """Note where each tensor lies; return the names of the files."""
        layers = range(text.first_k_dense_replace, text.num_hidden_layers)
        count = len(layers) * text.n_routed_experts
        self._file_of = np.empty((count, len(PARTS)), np.int32)
        self._offsets = np.empty((count, len(PARTS)), np.int64)
        names: dict[str, int] = {}
        places = ((layer, expert) for layer in layers for expert in range(text.n_routed_experts))
        for row, (layer, expert) in enumerate(places):
            infos = [checkpoint.info(name) for name in tensor_names(layer, expert)]
            self._file_of[row] = [names.setdefault(info.file, len(names)) for info in infos]
            self._offsets[row] = [info.offset for info in infos]
        return list(names)

    @property
    def direct(self) -> bool:
        """Whether all reads go past the page cache."""
        return all(file.direct for file in self._files)

    def read(self, layer: int, expert: int, target: NDArray[np.uint8]) -> int:
        """Read and repack a record into `target` [slot_bytes]; see RecordSource."""
        row = (layer - self._first_layer) * self._experts + expert
        if (
            layer < self._first_layer
            or not 0 <= expert < self._experts
            or row >= len(self._offsets)
        ):
            raise CheckpointError(f"there is no expert {expert} of layer {layer} in the checkpoint")
        if target.nbytes < self._shape.nbytes or not target.flags.c_contiguous:
            raise ValueError(f"target has {target.nbytes} bytes; a record {self._shape.nbytes}")
        files, offsets = self._file_of[row].tolist(), self._offsets[row].tolist()
        spans, places = plan(files, offsets, self._sizes)
        staging = self._staging()
        try:
            done = sum(self._read_span(span, staging) for span in spans)
        except CheckpointError as error:
            raise CheckpointError(f"expert {expert} of layer {layer}: {error}") from None
        parts = [
            _aligned(staging[at : at + size], item)
            for at, size, item in zip(places, self._sizes, ITEMS, strict=True)
        ]
        repack_expert(self._shape, parts, target)
        return done

    def _staging(self) -> NDArray[np.uint8]:
        """This thread's memory for what is read."""
        if not hasattr(self._own, "memory"):
            self._own.memory = pages(staging_bytes(self._sizes), "reading shards")
        memory: NDArray[np.uint8] = self._own.memory
        return memory

    def _read_span(self, span: Span, staging: NDArray[np.uint8]) -> int:
        file, needed = self._files[span.file], span.end - span.start
        done = file.read(staging[span.at : span.at + slot_bytes(needed)], span.start, needed)
        if file.stamp() != self._stamps[span.file]:
            raise CheckpointError(f"{file.path} was written to while in use; load the model again")
        return done

    def close(self) -> None:
        """Close the shards; reads that run end first."""
        for file in self._files:
            file.close()


def _open(model_dir: Path, name: str) -> PagedFile:
    fd = open_model_file(model_dir, name)
    try:
        return PagedFile(fd, model_dir / name)
    except OSError as error:
        os.close(fd)
        raise CheckpointError(f"cannot read {model_dir / name}: {error.strerror}") from None


def tensor_names(layer: int, expert: int) -> list[str]:
    """The six tensors of an expert, in the order of PARTS (spec §2.2)."""
    prefix = f"model.layers.{layer}.mlp.experts.{expert}."
    return [prefix + part for part in PARTS]


def tensor_sizes(shape: RecordShape) -> tuple[int, ...]:
    """Bytes of the six tensors: 4 bits a weight, 16 for the scale of a group."""
    weights = shape.hidden * shape.intermediate
    return (weights // 2, weights // GROUP * 2) * 3


def staging_bytes(sizes: Sequence[int]) -> int:
    """Room for any plan of tensors of these sizes."""
    return slot_bytes(sum(sizes) + len(sizes) * (2 * PAGE + GAP))


def plan(
    files: Sequence[int], offsets: Sequence[int], sizes: Sequence[int]
) -> tuple[list[Span], list[int]]:
    """Which pages to read for some tensors, and where each of them is in the staging memory then.

    Tensors of a file that are at most GAP bytes apart are read at once.
    """
    spans: list[Span] = []
    places = [0] * len(files)
    free = 0
    for part in sorted(range(len(files)), key=lambda part: (files[part], offsets[part])):
        file, begin, end = files[part], offsets[part], offsets[part] + sizes[part]
        last = spans[-1] if spans else None
        if last is None or last.file != file or begin > last.end + GAP:
            last = Span(file, begin // PAGE * PAGE, end, free)
            spans.append(last)
        last.end = max(last.end, end)
        free = last.at + slot_bytes(last.end - last.start)
        places[part] = last.at + begin - last.start
    return spans, places


def _aligned(part: NDArray[np.uint8], item: int) -> NDArray[np.uint8]:
    """The same bytes where words of `item` bytes may be loaded: shards need not align a tensor."""
    return part.copy() if part.ctypes.data % item else part


def repack_expert(
    shape: RecordShape, parts: Sequence[NDArray[np.uint8]], target: NDArray[np.uint8]
) -> None:
    """Write the record of an expert, given the bytes of its six tensors in the order of PARTS."""
    gate, gate_scale, up, up_scale, down, down_scale = (part.ctypes.data for part in parts)
    at, block = target.ctypes.data, shape.gate_block_bytes
    blocks, groups = shape.intermediate // ROWS, shape.hidden // GROUP
    run = repack()
    run(gate, gate_scale, blocks, groups, at, 2 * block)
    run(up, up_scale, blocks, groups, at + block, 2 * block)
    blocks, groups = shape.hidden // ROWS, shape.intermediate // GROUP
    run(down, down_scale, blocks, groups, at + shape.down_offset, shape.down_block_bytes)
