"""Files whose content is run as code: read only where nobody else can have written them.

A kernel on disk is unpickled, which can do anything. So it counts only if it is a regular file, and
if the file and its directory belong to this user or to root and nobody else may write to them.
Anything else in its place, a FIFO that would block its reader too, is as good as absent.
"""

import logging
import os
import stat
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def read_own(path: Path) -> bytes | None:
    """The content, or None for what does not count; raises OSError where nothing can be read."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return None
        if not (_is_own(info) and is_own(path.parent)):
            _warn_once(
                f"compiled kernels in {path.parent} are ignored: another user owns or may write to "
                "them; remove them, or chmod -R go-w the directory"
            )
            return None
        with open(fd, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(fd)


def is_own(directory: Path) -> bool:
    """Whether only this user and root can write there."""
    return _is_own(directory.stat())


def _is_own(info: os.stat_result) -> bool:
    if not hasattr(os, "geteuid"):  # Windows: permissions are not in the mode
        return True
    return info.st_uid in (0, os.geteuid()) and not info.st_mode & _OTHERS_WRITE


@cache
def _warn_once(text: str) -> None:
    log.warning(text)
