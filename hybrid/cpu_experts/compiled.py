"""Compile on first use, and keep the machine code on disk for the next start.

numba's own cache looks at the file of the outermost function only: a changed intrinsic in another
file would go unnoticed. It also refuses to import where no directory is writable, and lets a full
disk fail a compilation. Here a pickled compile result is one of our kernel_files.py, whose name
covers the sources of the function's own package too.
"""

import inspect
import pickle
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.core.caching import NullCache
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

from hybrid.cpu_experts import kernel_files

Build = TypeVar("Build", bound=Callable[..., Any])
_BUILDING = threading.RLock()
_OPTIONS = {"error_model": "numpy"}  # IEEE division instead of Python's ZeroDivisionError

_UNREADABLE = (  # what unpickling and rebuilding foreign bytes is known to raise
    pickle.PickleError, ArithmeticError, AttributeError, EOFError, ImportError, LookupError,
    MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip

_BARE = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # called from compiled code only

inlined = njit(
    forceinline=True, **_OPTIONS, **_BARE
)  # a piece of a kernel: dissolves in its caller


class _Stored(NullCache):  # type: ignore[misc]
    """numba's cache interface over one file per function."""

    def __init__(self, name: str, body: Callable[..., Any]) -> None:
        self._name = name
        self._sources = kernel_files.digest(Path(inspect.getfile(body)).parent)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        rtsys.initialize(target_context)  # what cached code calls; the compiler itself stays asleep
        body = kernel_files.read(self._name, self._key(target_context))
        return None if body is None else _rebuilt(target_context, body)

    def save_overload(self, sig: Any, cres: Any) -> None:
        if cres.library.has_dynamic_globals:
            raise AssertionError(f"{self._name} holds an address of this process")
        kernel_files.write(self._name, self._key(cres.target_context), dumps(cres._reduce()))

    def _key(self, target_context: Any) -> object:
        return self._sources, target_context.codegen().magic_tuple()


def _rebuilt(target_context: Any, body: bytes) -> Any:
    """The compile result that `dumps` wrote; None if it is something else."""
    try:
        return CompileResult._rebuild(target_context, *pickle.loads(body))
    except _UNREADABLE:
        return None


def once(build: Build) -> Build:
    """Like functools.cache, but threads that ask at the same time wait for one build."""
    made: dict[tuple[Any, ...], Any] = {}

    @wraps(build)
    def ask(*key: Any) -> Any:
        if key not in made:
            with _BUILDING:
                if key not in made:
                    made[key] = build(*key)
        return made[key]

    return cast("Build", ask)


def function(name: str, signature: Any, body: Callable[..., Any]) -> Any:
    """Compile `body` for one signature; called from Python it runs without the GIL."""
    dispatcher = njit(nogil=True, **_OPTIONS)(body)
    dispatcher._cache = _Stored(name, body)
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


def callback(name: str, signature: Any, body: Callable[..., Any]) -> Any:
    """Compile `body` to a C function; `.address` is what other compiled code calls."""
    compiled: Any = CFunc(body, (signature.args, signature.return_type), {}, dict(_OPTIONS))
    compiled._cache = _Stored(name, body)
    with global_compiler_lock:
        compiled.compile()
    return compiled
