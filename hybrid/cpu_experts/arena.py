"""Memory for weights: private, zeroed, starting on a huge page, and on huge pages where Linux can.

    | less than 2 MiB unused | whole huge pages (madvised)      | rest in 4 KiB pages | unused |
                             ^ the array starts here, on a multiple of 2 MiB

Weights are read once a token and no TLB of 4 KiB pages covers them. Only private memory gets huge
pages by madvise (shared memory follows another switch, which is off by default), and only private
memory is out of reach of a forked child's writes. What is not touched costs no memory.

With a node, pages come from that NUMA node's memory as long as it has any, then from elsewhere
(MPOL_PREFERRED). The stricter MPOL_BIND would end the process on a full node, with gigabytes free
on the next one: slow is better than dead.
"""

import ctypes
import errno
import logging
import mmap
import os
import platform
import sys
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from hybrid.errors import PlacementError

log = logging.getLogger(__name__)
HUGE_PAGE = 2 << 20  # bytes; x86-64, and aarch64 with 4 KiB pages
_MBIND = {"x86_64": 237, "aarch64": 235}  # number of mbind(2) per machine
_PREFERRED = 1
_WORD = 64  # bits of an unsigned long, the unit of a node mask


def allocate(
    nbytes: int,
    purpose: str = "expert records",
    advice: str = "use a machine with more memory or a smaller model",
    node: int | None = None,
) -> NDArray[np.uint8]:
    """Return a writable array of `nbytes` zeros that owns its memory.

    `node` is the NUMA node, as the kernel numbers it, to take the memory from; where Linux refuses
    that, as in many containers, the memory comes from anywhere and a debug line says so.
    Raises PlacementError naming the purpose, with the advice, if the address space is refused.
    """
    if nbytes == 0:
        return np.empty(0, np.uint8)
    try:
        memory = _private(nbytes + HUGE_PAGE)
    except (OSError, OverflowError, ValueError) as error:
        raise PlacementError(
            f"cannot reserve {nbytes / 2**30:.1f} GiB for {purpose} ({error}); {advice}"
        ) from None
    start = np.frombuffer(memory, np.uint8).ctypes.data
    if node is not None:
        _prefer(node, start, len(memory))
    skip = -start % HUGE_PAGE
    whole = nbytes // HUGE_PAGE * HUGE_PAGE
    if whole and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without transparent huge pages says EINVAL
            memory.madvise(mmap.MADV_HUGEPAGE, skip, whole)
    return np.frombuffer(memory, np.uint8, nbytes, skip)


def _private(nbytes: int) -> mmap.mmap:
    if hasattr(mmap, "MAP_PRIVATE") and hasattr(mmap, "MAP_ANONYMOUS"):
        return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, nbytes)


def _prefer(node: int, start: int, nbytes: int) -> None:
    """Ask for the node's memory before a page is touched: pages that exist would stay put."""
    mask = np.zeros(node // _WORD + 1, np.uint64)
    mask[node // _WORD] = 1 << node % _WORD
    refusal = _mbind(start, nbytes, _PREFERRED, mask)
    if refusal:
        log.debug("memory is not bound to node %d (%s)", node, os.strerror(refusal))


def _mbind(start: int, nbytes: int, mode: int, mask: NDArray[np.uint64]) -> int:
    """Call mbind(2); return 0 or the errno."""
    number = _MBIND.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return errno.ENOSYS
    bits = mask.size * _WORD + 1  # the kernel takes one off
    arguments = (number, start, nbytes, mode, mask.ctypes.data, bits, 0)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    if syscall(*map(ctypes.c_long, arguments)) == 0:
        return 0
    return ctypes.get_errno()
