"""Where records come from when they are in no memory: the protocol, and how large a slot is."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PAGE = 4096  # bytes: what direct I/O is aligned to


def slot_bytes(record_bytes: int) -> int:
    """Room for one record: whole pages, so that a file can be read straight into it."""
    return (record_bytes + PAGE - 1) // PAGE * PAGE


class RecordSource(Protocol):
    """A file, or several, that hold every routed expert of the model."""

    kind: str  # "records": prepared; "shards": as published, repacked on the way

    def read(self, layer: int, expert: int, target: NDArray[np.uint8]) -> int:
        """Read one record to the start of `target`, a page-aligned slot; return the bytes read.

        Several threads may read at once. Raises CheckpointError for what cannot be read or is not
        what was written; the slot then holds anything.
        """

    def close(self) -> None:
        """Close the files; a later read is a CheckpointError."""
