"""Compile on first use, and keep the machine code on disk for the next start.

numba's own cache looks at the file of the outermost function only: a changed intrinsic in another
file would go unnoticed. It also refuses to import where no directory is writable, and lets a full
disk fail a compilation. Here one file per function, named by a digest of everything that decides
its bytes (the sources of this package and of the function's own, numba, llvmlite, the CPU and its
features), is read if it is whole and nobody else's (own_files.py), and otherwise written if that is
possible:

    sha256 of the rest (32 B) | pickled numba compile result
"""

import hashlib
import inspect
import logging
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite
import numba
from numba import njit
from numba.core import config
from numba.core.caching import NullCache
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from hybrid.cpu_experts.own_files import is_own, read_own

log = logging.getLogger(__name__)
Build = TypeVar("Build", bound=Callable[..., Any])
_BUILDING = threading.RLock()
KEPT = 4  # versions of one function on disk: a few CPUs may share a home directory
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
        self._sources = _digest(Path(__file__).parent), _digest(Path(inspect.getfile(body)).parent)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        file = self._file(target_context.codegen())
        for directory in _directories():
            with suppress(OSError):
                data = read_own(directory / file)
                if data and hashlib.sha256(data[32:]).digest() == data[:32]:
                    return _rebuilt(target_context, data[32:])
        return None

    def save_overload(self, sig: Any, cres: Any) -> None:
        if cres.library.has_dynamic_globals:
            raise AssertionError(f"{self._name} holds an address of this process")
        body = dumps(cres._reduce())
        file = self._file(cres.target_context.codegen())
        for directory in _directories():
            with suppress(OSError):
                if _make_own(directory):
                    _write_whole(directory / file, hashlib.sha256(body).digest() + body)
                    return _forget_old(directory, self._name)
        return _warn_once("no writable directory for compiled kernels; the next start recompiles")

    def _file(self, codegen: Any) -> str:
        versions = numba.__version__, llvmlite.__version__, sys.version
        key = repr((self._sources, versions, codegen.magic_tuple()))
        return f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.kernel"


def _rebuilt(target_context: Any, body: bytes) -> Any:
    """The compile result that `dumps` wrote; None if it is something else."""
    try:
        return CompileResult._rebuild(target_context, *pickle.loads(body))
    except _UNREADABLE:
        return None


@cache
def _warn_once(text: str) -> None:
    log.warning(text)


@cache
def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _directories() -> list[Path]:
    """Where kernels may lie, best first: numba's chosen directory, beside us, the user's cache."""
    chosen = [Path(config.CACHE_DIR)] if config.CACHE_DIR else []
    user = Path(AppDirs(appname="kimi-local", appauthor=False).user_cache_dir)
    return [*chosen, Path(__file__).parent / "__pycache__", user]


def _make_own(directory: Path) -> bool:
    """Whether the directory exists now and what is written there will be read again."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return is_own(directory)


def _write_whole(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        scratch = Path(file.name)
        try:
            file.write(data)
            file.close()
            scratch.replace(path)
        except OSError:
            scratch.unlink(missing_ok=True)
            raise


def _forget_old(directory: Path, name: str) -> None:
    digits = "[0-9a-f]" * 24
    files = sorted(directory.glob(f"{name}-{digits}.kernel"), key=lambda path: path.stat().st_mtime)
    for path in files[:-KEPT]:
        path.unlink(missing_ok=True)


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
