"""The same objects on this host's own CPU, called with the emulated call's own arguments."""

import ctypes

import numpy as np

from hybrid.cpu_experts.machine_code import rows16
from tests.emulation.cases import Case
from tests.emulation.executed import call_of
from tests.emulation.machine import Buffer


def on_this_host(isa: str, case: Case) -> np.ndarray:
    """float32 [n, blocks * 16], by the kernel that the runtime would call."""
    arguments = call_of(isa, case).arguments
    arrays = [np.ascontiguousarray(a.array) for a in arguments if isinstance(a, Buffer)]
    addresses = iter([array.ctypes.data for array in arrays])
    words = [next(addresses) if isinstance(a, Buffer) else a for a in arguments]
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(words))(rows16(isa, case.mode))(*words)
    return arrays[-1]
