"""Keep freed memory: activations come and go a hundred times a second, and a page costs a fault."""

import ctypes
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt
_NEVER = (1 << 31) - 1


def keep_memory() -> None:
    """Tell glibc to reuse freed memory rather than to return it; elsewhere do nothing."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)
