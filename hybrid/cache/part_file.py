"""A record file in the making: locked, with a journal, and under another name until it is whole.

    NAME.part   as the record file (record_file.py), but the magic is "KLPARTIA" and the table is
                the journal: the checksum of each record that is on the disk, 0 where none is yet

Data are synchronised before the journal names them. The journal itself may lose its last entries,
and a crash may tear it: so whoever goes on with a part file reads back what the journal names, and
believes a record only if it has its checksum. `finish` writes the head and then gives the file its
name; until then nobody takes it for whole.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybrid.cache.direct_io import make_direct, open_regular, write_pages
from hybrid.cache.record_file import (
    MAGIC,
    Contents,
    head_pages,
    pack_head,
    parse_head,
    read_table,
    require_match,
)
from hybrid.cache.source import PAGE
from hybrid.errors import CheckpointError, PlacementError

MAGIC_PART = b"KLPARTIA"
COMMIT_BYTES = 256 << 20  # between two commits; a crash costs what two of them write
_FULL = (errno.ENOSPC, errno.EDQUOT)


def part_path(output: Path) -> Path:
    """Where a record file lies while it is being written."""
    return output.with_name(f"{output.name}.part")


class PartFile:
    """Open for writing and locked; `journal` holds the checksum of each durable record, else 0."""

    def __init__(self, output: Path, contents: Contents, *, force: bool) -> None:
        """Open or make the part file of `output`, and read its journal.

        Raises CheckpointError if it belongs to other contents (unless forced) or is another kind of
        file, PlacementError if it cannot be written or another process is writing it.
        """
        self.output, self.path, self.contents = output, part_path(output), contents
        self._pending: dict[int, int] = {}
        with writing(self.path):
            self._fd = open_locked(self.path, os.O_CREAT)
            try:
                self.journal = self._resume(force)
                self._data_fd, self.direct = self._open_data()
            except BaseException:
                os.close(self._fd)
                raise

    def _resume(self, force: bool) -> NDArray[np.uint64]:
        page = os.pread(self._fd, PAGE, 0)
        if page.strip(b"\0"):
            require_ours(page, self.path)
            try:
                return self._read_journal(page)
            except CheckpointError:
                if not force:
                    raise
        os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, self.contents.nbytes)
        empty = np.zeros(self.contents.records, np.uint64)  # [records]
        # written, not left as a hole: on a full disk the journal must still have its place
        _write(self._fd, head_pages(self.contents, empty).tobytes(), 0)
        _write(self._fd, pack_head(self.contents, MAGIC_PART, 0), 0)
        os.fsync(self._fd)
        sync_directory(self.path.parent)
        return empty

    def _read_journal(self, page: bytes) -> NDArray[np.uint64]:
        # a part file with the final magic was complete and only not renamed yet
        magic = MAGIC if page.startswith(MAGIC) else MAGIC_PART
        found, _ = parse_head(page, self.path, magic)
        require_match(self.path, found, self.contents)
        os.ftruncate(self._fd, self.contents.nbytes)
        return read_table(self._fd, self.contents)

    def _open_data(self) -> tuple[int, bool]:
        fd = open_regular(self.path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            return fd, make_direct(fd)
        except BaseException:
            os.close(fd)
            raise

    def forget(self, index: int) -> None:
        """Take a record out of the journal: it is not what the journal says."""
        self.journal[index] = 0

    def write(self, index: int, record: NDArray[np.uint8], checksum: int) -> None:
        """Write a record, whole pages; it counts as written after the next commit."""
        with writing(self.path, self._missing):
            write_pages(self._data_fd, record, self.contents.offset(index))
            self._pending[index] = checksum
            if len(self._pending) * self.contents.stride >= COMMIT_BYTES:
                self._commit()

    def commit(self) -> None:
        """Make what was written durable, then say so in the journal."""
        with writing(self.path, self._missing):
            self._commit()

    def _commit(self) -> None:
        pending, self._pending = self._pending, {}  # a sync that failed must not be believed later
        if not pending:
            return
        os.fdatasync(self._data_fd)
        if not self.direct:
            os.posix_fadvise(self._data_fd, self.contents.data_offset, 0, os.POSIX_FADV_DONTNEED)
        for index, checksum in pending.items():
            self.journal[index] = checksum
        first, last = min(pending), max(pending)
        entries = self.journal[first : last + 1].astype("<u8", copy=False)
        _write(self._fd, entries.tobytes(), PAGE + 8 * first)

    def _missing(self) -> int:
        """Bytes of the records that are not there yet."""
        return int(np.count_nonzero(self.journal == 0)) * self.contents.stride

    def finish(self) -> None:
        """Head, name and all, each on the disk before the next step."""
        with writing(self.path, self._missing):
            self._commit()
            os.fsync(self._data_fd)
            _write(self._fd, head_pages(self.contents, self.journal).tobytes(), 0)
            os.fsync(self._fd)
            self.path.replace(self.output)
            sync_directory(self.output.parent)

    def remove(self) -> None:
        """Take the file away again."""
        self.path.unlink()

    def close(self) -> None:
        """Let go of file and lock; what was not committed is written again by the next run."""
        os.close(self._data_fd)
        os.close(self._fd)


@contextmanager
def writing(path: Path, missing: Callable[[], int] | None = None) -> Iterator[None]:
    """Turn what the system says against writing `path` into one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise PlacementError(_refusal(path, error, missing() if missing else 0)) from None


def _refusal(path: Path, error: OSError, missing: int) -> str:
    if error.errno in _FULL:
        return (
            f"{path.parent} is full ({error.strerror}): {missing / 1e9:,.3f} GB more are needed; "
            "what is written is kept: make room and run the same command again"
        )
    if error.errno == errno.EFBIG:
        return (
            f"{path} may not become so large: the file system or `ulimit -f` forbids it; raise the "
            "limit, or give another place with --output"
        )
    if error.errno == errno.ELOOP:
        return f"{path} is a symlink; remove it, or give the file itself with --output"
    return f"cannot write {path}: {error.strerror}; give another place with --output"


def open_locked(path: Path, flags: int = 0) -> int:
    """Open a regular file for writing, for this process alone; raises OSError for a symlink.

    Raises PlacementError if another process holds it, CheckpointError for what is no file.
    """
    while True:
        fd = open_regular(path, os.O_RDWR | os.O_NOFOLLOW | flags)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise PlacementError(
                f"another `kimi-local prepare` is writing {path}; wait until it ends"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # renamed or removed between opening and locking


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def require_file(path: Path) -> bool:
    """Whether there is a regular file; raises CheckpointError for anything else of that name."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise PlacementError(_refusal(path, error, 0)) from None
    if stat.S_ISLNK(mode):
        raise CheckpointError(f"{path} is a symlink; remove it, or give the file itself")
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path} is not a regular file; give another path with --output")
    return True


def require_ours(page: bytes, path: Path) -> None:
    """Raise CheckpointError unless a file begins as ours do: nothing else is ever written over."""
    if page[: len(MAGIC)] not in (MAGIC, MAGIC_PART):
        raise CheckpointError(f"{path} is not a record file; give another path")


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
