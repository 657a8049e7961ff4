"""Memory for weights: private, zeroed, starting on a huge page, and on huge pages where Linux can.

    | less than 2 MiB unused | whole huge pages (madvised)      | rest in 4 KiB pages | unused |
                             ^ the array starts here, on a multiple of 2 MiB

Weights are read once a token and no TLB of 4 KiB pages covers them. Only private memory gets huge
pages by madvise (shared memory follows another switch, which is off by default), and only private
memory is out of reach of a forked child's writes. What is not touched costs no memory.
"""

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from hybrid.errors import PlacementError

HUGE_PAGE = 2 << 20  # bytes; x86-64, and aarch64 with 4 KiB pages


def allocate(
    nbytes: int,
    purpose: str = "expert records",
    advice: str = "use a machine with more memory or a smaller model",
) -> NDArray[np.uint8]:
    """Return a writable array of `nbytes` zeros that owns its memory.

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
    skip = -np.frombuffer(memory, np.uint8).ctypes.data % HUGE_PAGE
    whole = nbytes // HUGE_PAGE * HUGE_PAGE
    if whole and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without transparent huge pages says EINVAL
            memory.madvise(mmap.MADV_HUGEPAGE, skip, whole)
    return np.frombuffer(memory, np.uint8, nbytes, skip)


def _private(nbytes: int) -> mmap.mmap:
    if hasattr(mmap, "MAP_PRIVATE") and hasattr(mmap, "MAP_ANONYMOUS"):
        return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, nbytes)
