"""Memory for expert records: page-aligned, zeroed, on huge pages where Linux grants them.

A record is read once per token and never fits a TLB of 4 KiB pages, so huge pages are worth 10-25 %
of decode speed.
"""

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from hybrid.errors import PlacementError


def allocate(nbytes: int) -> NDArray[np.uint8]:
    """Return a writable array of `nbytes` zeros that owns its memory."""
    try:
        memory = mmap.mmap(-1, nbytes)
    except (OSError, OverflowError, ValueError) as error:
        raise PlacementError(
            f"cannot reserve {nbytes / 2**30:.1f} GiB for expert records ({error}); "
            "use a machine with more memory or a smaller model"
        ) from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without transparent huge pages says EINVAL
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)
