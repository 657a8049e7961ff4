"""The file system that holds a model: room, and whether it reads past the page cache."""

import os
from itertools import islice
from pathlib import Path

from hybrid.hardware.description import Disk

MOST_NAMES = 1000  # of a directory that are looked at for a file to try


def read_disk(directory: Path) -> Disk | None:
    """The file system of a directory; None if there is no such directory."""
    try:
        state = os.statvfs(directory)
    except OSError:
        return None
    return Disk(
        total_bytes=state.f_blocks * state.f_frsize,
        free_bytes=state.f_bavail * state.f_frsize,
        direct=reads_directly(directory),
    )


def reads_directly(directory: Path) -> bool | None:
    """Whether O_DIRECT works on a file of the directory; None without a file to try it on."""
    from hybrid.cache.direct_io import make_direct, open_regular
    from hybrid.errors import CheckpointError

    for path in _some_files(directory):
        try:
            fd = open_regular(path)
        except (OSError, CheckpointError):
            continue
        try:
            return make_direct(fd)
        except OSError:
            continue
        finally:
            os.close(fd)
    return None


def _some_files(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in islice(entries, MOST_NAMES)]
    except OSError:
        return []
    return [directory / name for name in sorted(names)][:16]
