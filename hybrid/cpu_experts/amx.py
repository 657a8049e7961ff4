"""AMX needs the kernel's permission: 8 KiB of tile registers make a thread's saved state larger.

    arch_prctl(ARCH_GET_XCOMP_SUPP, &mask)    which extended states the kernel can save
    arch_prctl(ARCH_REQ_XCOMP_PERM, 18)       may this process use tile data?
    arch_prctl(ARCH_GET_XCOMP_PERM, &mask)    what it may use now

Without it the first tile instruction kills the process. A grant holds for all threads and across
fork, not across exec (Linux >= 5.16, Documentation/arch/x86/xstate.rst).
"""

import ctypes
import errno
import logging
import platform
import sys
from collections.abc import Callable
from functools import cache

_ARCH_PRCTL = 158  # number of arch_prctl(2) on x86-64
_SUPPORTED, _PERMITTED, _REQUEST = 0x1021, 0x1022, 0x1023
_TILE_DATA = 18
_TILES = 0b11 << 17  # tile configuration and tile data

_log = logging.getLogger(__name__)

ArchPrctl = Callable[[int, int], int]  # (code, address or number) -> 0 or errno


@cache
def amx_permitted() -> bool:
    """Whether this process may use AMX tiles; asks the kernel once. Refusal is one log line."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return request(_arch_prctl)


def request(arch_prctl: ArchPrctl) -> bool:
    """Ask for tile data through a system call; False, and logged, where the kernel refuses."""
    supported = _mask(arch_prctl, _SUPPORTED)
    if supported & _TILES != _TILES:
        _log.info("AMX is off: the kernel can save states %#x, tiles are %#x", supported, _TILES)
        return False
    error = arch_prctl(_REQUEST, _TILE_DATA)
    if error:
        _log.info("AMX is off: the kernel refused tile data, %s", _reason(error))
        return False
    granted = _mask(arch_prctl, _PERMITTED)
    if granted & _TILES != _TILES:
        _log.info("AMX is off: the kernel granted states %#x, tiles are %#x", granted, _TILES)
        return False
    return True


def _mask(arch_prctl: ArchPrctl, code: int) -> int:
    """The states that a query answers with; none where it is not known."""
    answer = ctypes.c_uint64(0)
    failed = arch_prctl(code, ctypes.addressof(answer))
    return 0 if failed else answer.value


def _reason(error: int) -> str:
    name = errno.errorcode.get(error, str(error))
    if error == errno.ENOSPC:
        return f"{name}: an alternate signal stack of this process is too small to save tiles"
    return name


def _arch_prctl(code: int, argument: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    words = ctypes.c_long(_ARCH_PRCTL), ctypes.c_long(code), ctypes.c_ulong(argument)
    return ctypes.get_errno() if libc.syscall(*words) else 0
