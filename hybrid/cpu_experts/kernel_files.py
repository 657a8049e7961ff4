"""Machine code on disk: one file for each kernel, read only if it is whole and our own.

    <name>-<digest>.kernel    sha256 of the rest (32 B) | content

The digest covers everything that decides the content: this package's sources, what the caller adds
(CPU features, other sources), and the versions of numba, llvmlite and Python. Nobody needs the
files: where no directory can be written the next start compiles again, and says so once.
"""

import hashlib
import logging
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import llvmlite
import numba
from numba.core import config
from numba.misc.appdirs import AppDirs

from hybrid.cpu_experts.own_files import is_own, read_own

log = logging.getLogger(__name__)
KEPT = 4  # versions of one kernel on disk: a few CPUs may share a home directory


def read(name: str, key: object) -> bytes | None:
    """The kept content for a key, None if there is none that can be trusted."""
    file = _file(name, key)
    for directory in _directories():
        with suppress(OSError):
            data = read_own(directory / file)
            if data and hashlib.sha256(data[32:]).digest() == data[:32]:
                return data[32:]
    return None


def write(name: str, key: object, content: bytes) -> None:
    """Keep content in the best directory that can be written."""
    file = _file(name, key)
    for directory in _directories():
        with suppress(OSError):
            if _make_own(directory):
                _write_whole(directory / file, hashlib.sha256(content).digest() + content)
                return _forget_old(directory, name)
    return _warn_once("no writable directory for compiled kernels; the next start recompiles")


@cache
def digest(folder: Path) -> str:
    """Of all Python sources in a folder and below."""
    sources = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        sources.update(path.read_bytes())
    return sources.hexdigest()


def _file(name: str, key: object) -> str:
    versions = numba.__version__, llvmlite.__version__, sys.version
    facts = repr((digest(Path(__file__).parent), versions, key))
    return f"{name}-{hashlib.sha256(facts.encode()).hexdigest()[:24]}.kernel"


@cache
def _warn_once(text: str) -> None:
    log.warning(text)


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
