"""The Bochs CPU core in this process, as one chosen CPU model.

The package is `bochscpu-python`. Its wheel refers to two symbols of glibc 2.38 through the
procedure linkage table only and never calls them here, so lazy binding loads it on older ones too.
A second CPU in one process corrupts the first: hence one model for each process.
"""

import ctypes
import os
import sys
from typing import Any

MODELS = {  # index in Bochs' list of CPU models
    "haswell": 24,  # AVX2
    "skylake_x": 26,  # AVX-512 F, BW, DQ, VL, CD
    "tigerlake": 29,  # + VNNI
    "sapphire_rapids": 30,  # + BF16, FP16, AVX-VNNI
    "arrow_lake": 31,  # AVX2 + AVX-VNNI, no AVX-512
}


def load() -> Any:
    """The package `bochscpu`, imported; ImportError where it is not installed."""
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_LAZY)
    try:
        import bochscpu
        import bochscpu.cpu
        import bochscpu.memory
    finally:
        sys.setdlopenflags(flags)
    return bochscpu


def select_model(bochscpu: Any, name: str) -> None:
    """Choose the CPU of the session to come, through functions that the library exports.

    The Python interface has no word for it, and the core's own set-by-name is broken there.
    """
    core = ctypes.PyDLL(bochscpu._bochscpu.__file__, mode=os.RTLD_LAZY)
    parameter = core.sim_get_param_enum
    parameter.restype, parameter.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    choose = core._ZN15bx_param_enum_c3setEl
    choose.restype, choose.argtypes = None, [ctypes.c_void_p, ctypes.c_long]
    choose(parameter(b"cpu.model"), MODELS[name])
