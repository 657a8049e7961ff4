"""The disk that holds a model: whole records at places that nobody read before.

Only what is there is read: the prepared file or the largest shard. `several` keeps as many threads
busy as the expert cache does, alone or while something else computes; each read is summed up, as a
record's checksum is. The page cache is asked to forget the file first, and reads go past it where
the file system allows that.
"""

import os
import random
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybrid.cache.direct_io import PagedFile, open_paged, pages
from hybrid.cache.reader import THREADS
from hybrid.cache.record_file import checksum
from hybrid.cache.source import PAGE, slot_bytes
from hybrid.errors import CheckpointError

SUFFIXES = (".records", ".safetensors")
ALONE = 64  # records
LONGEST_S = 1.5  # of one measurement, on a slow disk
FEWEST_SPANS = 4 * THREADS  # places that a file must have, or reads would repeat themselves


@dataclass(slots=True)
class Reading:
    """What threads have read so far."""

    nbytes: int = 0
    records: int = 0


class DiskRates:
    """A file that is there, read in spans of a record."""

    def __init__(self, path: Path, record_bytes: int) -> None:
        _forget(path)
        self._span = slot_bytes(record_bytes)
        self._file: PagedFile = open_paged(path)
        spans = list(range(self._file.stamp()[0] // self._span))
        random.Random(0).shuffle(spans)
        self._offsets = [span * self._span // PAGE * PAGE for span in spans]
        self._at = 0
        self._lock = threading.Lock()

    @classmethod
    def of(cls, model_dir: Path, record_bytes: int) -> "DiskRates | None":
        """The largest file with weights; None if there is none that says enough."""
        try:
            sizes = {
                path: path.stat().st_size
                for path in model_dir.iterdir()
                if path.suffix in SUFFIXES and path.is_file()
            }
        except OSError:
            return None
        path = max(sizes, key=lambda each: sizes[each], default=None)
        if path is None or sizes[path] < FEWEST_SPANS * slot_bytes(record_bytes):
            return None
        try:
            return cls(path, record_bytes)
        except CheckpointError:
            return None

    def alone(self) -> float:
        """Mean seconds of a record that is read by itself. Raises CheckpointError."""
        target = pages(self._span, "a record")
        times: list[float] = []
        stop = time.perf_counter() + LONGEST_S
        while len(times) < ALONE and time.perf_counter() < stop:
            began = time.perf_counter()
            self._read(target)
            times.append(time.perf_counter() - began)
        return statistics.fmean(times)  # a token waits for the slow ones too

    def several(self, seconds: float, meanwhile: Callable[[], None]) -> float:
        """GB/s of THREADS readers while `meanwhile` is called again and again for so long."""
        so_far, over = Reading(), threading.Event()
        failures: list[CheckpointError] = []
        readers = [
            threading.Thread(target=self._keep_reading, args=(so_far, over, failures))
            for _ in range(THREADS)
        ]
        began = time.perf_counter()
        for reader in readers:
            reader.start()
        try:
            meanwhile()
            while time.perf_counter() - began < seconds and not failures:
                meanwhile()
        finally:
            over.set()
            for reader in readers:
                reader.join()
        spent = time.perf_counter() - began  # the last reads are counted, and their time
        if failures:
            raise failures[0]
        return so_far.nbytes / 1e9 / spent

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _keep_reading(
        self, so_far: Reading, over: threading.Event, failures: list[CheckpointError]
    ) -> None:
        target = pages(self._span, "a record")
        while not over.is_set():
            try:
                nbytes = self._read(target)
            except CheckpointError as error:
                failures.append(error)
                return
            with self._lock:
                so_far.nbytes += nbytes
                so_far.records += 1

    def _read(self, target: NDArray[np.uint8]) -> int:
        """What the cache does with a record (hybrid/cache/file_source.py)."""
        nbytes = self._file.read(target, self._next(), self._span)
        checksum(target)
        return nbytes

    def _next(self) -> int:
        with self._lock:
            offset = self._offsets[self._at % len(self._offsets)]
            self._at += 1
        return offset


def _forget(path: Path) -> None:
    """Ask the page cache to drop what it has of a file."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
