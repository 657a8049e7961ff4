"""System calls from compiled code that native.py lacks: a sleep that ends, a sign of life.

Numbers are those of Linux on the machines where the pool has a futex; elsewhere nothing is called.
"""

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hybrid.cpu_experts.native import HAS_FUTEX

_NUMBERS = {"x86_64": (202, 234), "aarch64": (98, 131)}  # futex(2), tgkill(2)
_FUTEX, _TGKILL = _NUMBERS.get(platform.machine(), (0, 0))
_WAIT_PRIVATE = 128


def _system_call(builder: Any, number: int, arguments: Any) -> Any:
    """The C library's syscall(2): -1 for an error."""
    word = ir.IntType(64)
    kind = ir.FunctionType(word, [word], var_arg=True)
    syscall = cgutils.get_or_insert_function(builder.module, kind, "syscall")
    return builder.call(syscall, [word(number), *arguments])


@intrinsic
def sleep_at_most(typing: Any, address: Any, value: Any, timeout: Any) -> Any:
    """Sleep while the int32 at `address` holds `value`, no longer than the timespec at `timeout`.

    May return early, so callers loop. Returns at once where there is no futex.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        if HAS_FUTEX:
            value = builder.sext(args[1], word)
            _system_call(builder, _FUTEX, [args[0], word(_WAIT_PRIVATE), value, args[2]])
        return context.get_dummy_value()

    return types.void(types.intp, types.int32, types.intp), codegen


@intrinsic
def is_alive(typing: Any, process: Any, thread: Any) -> Any:
    """Whether a thread of this process still exists; True where nobody can tell."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not HAS_FUTEX:
            return ir.IntType(1)(1)
        word = ir.IntType(64)
        answer = _system_call(builder, _TGKILL, [args[0], args[1], word(0)])
        return builder.icmp_signed("==", answer, word(0))

    return types.boolean(types.intp, types.intp), codegen
