"""Records from the prepared file: one read past the page cache straight into the caller's slot.

Each record is held against its checksum every time it is read, because a disk that returns other
bytes than were written must become an error and not other tokens. xxh3 runs without the GIL on the
thread that reads: 14 GB/s on one core of an AMD EPYC (Zen 3), while others' reads keep a disk busy.
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybrid.cache.direct_io import PagedFile, open_regular
from hybrid.cache.record_file import (
    MEND,
    Contents,
    RecordFile,
    checksum,
    require_match,
)
from hybrid.errors import CheckpointError


class FileSource:
    """A RecordSource over a record file. `direct` says whether reads go past the page cache."""

    kind = "records"

    def __init__(self, path: Path | str, want: Contents | None = None) -> None:
        """Open and check the file; `want` is what the model needs (fingerprint.contents_of).

        Raises CheckpointError in one line for a file that is absent, damaged or of another model.
        """
        path = Path(path)
        try:
            fd = open_regular(path)
            try:
                records = RecordFile.read(fd, path)
                self.contents, self._checksums = records.contents, records.checksums
                if want is not None:
                    require_match(path, self.contents, want)
                self._file = PagedFile(fd, path)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from None

    @property
    def path(self) -> Path:
        """Where the file was when it was opened."""
        return self._file.path

    @property
    def direct(self) -> bool:
        """Whether reads go past the page cache."""
        return self._file.direct

    def read(self, layer: int, expert: int, target: NDArray[np.uint8]) -> int:
        """Read a record into `target` [slot_bytes], page-aligned; see RecordSource."""
        contents = self.contents
        index = contents.index(layer, expert)
        if target.nbytes < contents.stride:
            raise ValueError(f"target has {target.nbytes} bytes; a slot has {contents.stride}")
        slot = target[: contents.stride]
        try:
            done = self._file.read(slot, contents.offset(index), contents.stride)
        except CheckpointError as error:
            raise CheckpointError(f"expert {expert} of layer {layer}: {error}") from None
        if checksum(slot[: contents.shape.nbytes]) != self._checksums[index]:
            raise CheckpointError(
                f"expert {expert} of layer {layer} is damaged in {self.path} (checksum); {MEND}"
            )
        return done

    def close(self) -> None:
        """Close the file; reads that run end first."""
        self._file.close()
