"""Reads and writes of whole pages past the page cache, into and out of memory the caller owns.

    file     |....|####|####|####|..      pages of 4 KiB; the last one may be cut by the end
    memory        |####|####|####|        starts on a page as well

571 GB of records in the page cache would push out what is in use, and a copy through it costs a
core. So files are read with O_DIRECT. Where a file system refuses that (some overlays, FUSE), the
same reads go through the page cache, which is asked to drop the pages at once; `direct` says which.
"""

import errno
import fcntl
import logging
import mmap
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybrid.cache.source import PAGE
from hybrid.cpu_experts import arena
from hybrid.errors import CheckpointError

log = logging.getLogger(__name__)
_DIRECT = getattr(os, "O_DIRECT", 0)  # not on every system
_REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP)
AGAIN = "check the disk (dmesg says more), then run it again"


class PagedFile:
    """An open file that several threads read at once; closes when the last of them is done.

    The descriptor is the file itself: if another file takes its name, reads go on with the old one.
    """

    __slots__ = ("_closed", "_fd", "_lock", "_readers", "direct", "path")

    def __init__(self, fd: int, path: Path) -> None:
        """Take over the descriptor `fd` of the regular file that was opened as `path`."""
        self.path = path
        self.direct = make_direct(fd)
        self._fd = fd
        self._lock = threading.Lock()
        self._readers = 0
        self._closed = False
        if not self.direct:
            log.info("%s is read through the page cache: no O_DIRECT here", path)

    def read(self, target: NDArray[np.uint8], offset: int, needed: int) -> int:
        """Fill `target`, whole pages of memory, from page `offset` on; return the bytes read.

        `needed` bytes must be there; the file may end between them and the end of `target`.
        Raises CheckpointError for an end before them, for an I/O error, and after `close`.
        """
        check_pages(target, offset)
        with self._reading() as fd:
            try:
                done = self._fill(fd, target.data, offset, needed)
            except OSError as error:
                raise CheckpointError(
                    f"cannot read {self.path} at byte {offset}: {error.strerror}; {AGAIN}"
                ) from None
            if done < needed:
                raise CheckpointError(
                    f"{self.path} ends at byte {offset + done}, before {offset + needed}; it was "
                    "cut short"
                )
            return done

    def _fill(self, fd: int, target: memoryview, offset: int, needed: int) -> int:
        done = 0
        while done < needed:
            count = os.preadv(fd, [target[done:]], offset + done)
            # behind a part of a page no direct read can go on: the next one begins at that page
            step = count // PAGE * PAGE if self.direct else count
            if done + count >= needed or step == 0:
                done += count
                break
            done += step
        if not self.direct:
            os.posix_fadvise(fd, offset, len(target), os.POSIX_FADV_DONTNEED)
        return done

    def stamp(self) -> tuple[int, int]:
        """Size and time of the last write: what changes when the file is written to."""
        with self._reading() as fd:
            seen = os.fstat(fd)
        return seen.st_size, seen.st_mtime_ns

    def close(self) -> None:
        """Let no further read begin; those that run keep the file open until they end."""
        with self._lock:
            was_closed, self._closed = self._closed, True
            if not was_closed and not self._readers:
                os.close(self._fd)

    @contextmanager
    def _reading(self) -> Iterator[int]:
        with self._lock:
            if self._closed:
                raise CheckpointError(f"{self.path} is closed; load the model again")
            self._readers += 1
        try:
            yield self._fd
        finally:
            with self._lock:
                self._readers -= 1
                if self._closed and not self._readers:
                    os.close(self._fd)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file; a FIFO does not block, a device is not touched by more than the open.

    Raises OSError, and CheckpointError for what is no regular file.
    """
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CheckpointError(f"{path} is not a regular file; give another path")
    return fd


def open_paged(path: Path) -> PagedFile:
    """Open a regular file for reading; raises CheckpointError."""
    try:
        fd = open_regular(path)
        try:
            return PagedFile(fd, path)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None


def make_direct(fd: int) -> bool:
    """Switch an open file to direct I/O; tell whether its file system reads that way."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | _DIRECT)
        if flags & os.O_ACCMODE != os.O_WRONLY:
            with mmap.mmap(-1, PAGE) as page:
                os.preadv(fd, [page], 0)
    except OSError as error:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        if error.errno in _REFUSALS:
            return False
        raise
    return bool(_DIRECT)


def write_pages(fd: int, source: NDArray[np.uint8], offset: int) -> None:
    """Write whole pages at page `offset`, all of them; raises OSError."""
    check_pages(source, offset)
    view = source.data
    while view:
        count = os.pwritev(fd, [view], offset) // PAGE * PAGE
        if count == 0:  # not even a page: a regular file refuses the rest for lack of room only
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view, offset = view[count:], offset + count


def pages(nbytes: int, purpose: str) -> NDArray[np.uint8]:
    """Zeroed memory that direct I/O takes; raises PlacementError if there is none."""
    return arena.allocate(nbytes, purpose, "use fewer threads")


def check_pages(memory: NDArray[np.uint8], offset: int) -> None:
    """Raise ValueError unless memory and offset are whole pages: a mistake of the program."""
    flags = memory.flags
    if memory.ndim != 1 or memory.dtype != np.uint8 or not flags.c_contiguous:
        raise ValueError(f"memory is {memory.dtype} {memory.shape}; direct I/O takes flat uint8")
    if memory.ctypes.data % PAGE or memory.nbytes % PAGE or offset % PAGE:
        raise ValueError(
            f"direct I/O takes whole pages of {PAGE} bytes; memory at {memory.ctypes.data}, "
            f"{memory.nbytes} bytes, file at {offset}"
        )
