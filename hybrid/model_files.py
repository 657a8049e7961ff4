"""What may be read from a model directory, and how much of it.

A model directory is foreign data. Every file of it is opened through here, so that nothing reads
outside the directory, blocks on a FIFO or allocates more than a bound:

    name     a plain file name: no '/', no '..', no control characters
    target   after symlinks, inside the directory itself, or in the `blobs` folder of a download
             cache laid out as  <repo>/snapshots/<revision>/<name> -> <repo>/blobs/<hash>
    kind     a regular file
    size     at most the caller's limit, where the whole file is read

JSON is read strictly: UTF-8, an object at the top, no repeated keys, no NaN or Infinity.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from hybrid.errors import CheckpointError, KimiLocalError

MAX_NAME = 255  # what Linux file systems allow
MAX_SHOWN = 80  # characters of a foreign value that an error repeats


def shown(value: object) -> str:
    """Spell a foreign value for an error line: printable ASCII, one line, short."""
    text = ascii(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def require_directory(model_dir: Path) -> None:
    """Raise CheckpointError unless `model_dir` is a directory that can be listed."""
    list_model_files(model_dir)


def list_model_files(model_dir: Path) -> list[str]:
    """Return the sorted names of all that lies in the directory, symlinks and all."""
    try:
        return sorted(os.listdir(model_dir))  # noqa: PTH208  names are all that is wanted
    except FileNotFoundError:
        raise CheckpointError(
            f"{model_dir} does not exist; give the directory of a checkpoint"
        ) from None
    except NotADirectoryError:
        raise CheckpointError(
            f"{model_dir} is not a directory; give the directory, not a file"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot list {model_dir}: {error.strerror}") from None


def resolve_model_file(model_dir: Path, name: str) -> Path:
    """Return the real path of `name` in `model_dir`, or raise CheckpointError (see the rules)."""
    if not _is_plain(name):
        raise CheckpointError(f"{shown(name)} is not a plain file name")
    path = model_dir / name
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: a symlink loop
        raise CheckpointError(f"cannot read {path}: {_reason(error)}") from None
    if not any(real.is_relative_to(root) for root in _roots(model_dir)):
        raise CheckpointError(
            f"{path} is a symlink that leaves the model directory; copy the file into it"
        )
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path} is not a regular file")
    return real


def open_model_file(model_dir: Path, name: str) -> int:
    """Open a file of the model for reading; returns a descriptor that the caller closes."""
    path = resolve_model_file(model_dir, name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CheckpointError(f"cannot read {model_dir / name}: {_reason(error)}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # swapped since it was looked at
        os.close(fd)
        raise CheckpointError(f"{model_dir / name} is not a regular file")
    return fd


def read_model_file(model_dir: Path, name: str, max_bytes: int) -> bytes:
    """Return the content of a file of the model, which may hold at most `max_bytes`."""
    try:
        with os.fdopen(open_model_file(model_dir, name), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise CheckpointError(f"{model_dir / name} is larger than {max_bytes} bytes")
            return file.read(size)
    except OSError as error:
        raise CheckpointError(f"cannot read {model_dir / name}: {_reason(error)}") from None


def parse_json_object(
    data: bytes, where: str, error: type[KimiLocalError] = CheckpointError
) -> dict[str, Any]:
    """Parse strict JSON whose top is an object; raise `error` naming `where` for anything else."""
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except UnicodeDecodeError as bad:
        raise error(f"{where} is not UTF-8 (byte {bad.start})") from None
    except ValueError as bad:  # JSONDecodeError, a repeated key, NaN, a number of 5000 digits
        raise error(f"{where} is not valid JSON: {bad}") from None
    except RecursionError:
        raise error(f"{where} is not valid JSON: nested too deeply") from None
    if not isinstance(value, dict):
        raise error(f"{where} holds a JSON {type(value).__name__}; expected an object")
    return value


def _is_plain(name: str) -> bool:
    return (
        0 < len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME
        and name not in (".", "..")
        and name.isprintable()
        and not any(c in name for c in "/\\")
    )


def _roots(model_dir: Path) -> list[Path]:
    root = model_dir.resolve()
    if root.parent.name == "snapshots":
        return [root, root.parent.parent / "blobs"]
    return [root]


def _reason(error: OSError | RuntimeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "a symlink loop"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(repeated)} appears twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
