"""From what a caller calls an image or a video to its bytes.

    bytes                       as they are
    Path                        a file that the caller itself names
    "data:image/png;base64,…"   what the URL holds
    "file:///x/y.png", "y.png"  a file under the directory that the caller opened for URLs

Nothing is fetched from a network: who answers requests of others would fetch whatever they like.
"""

import base64
import os
import stat
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from hybrid.errors import RequestError
from hybrid.model_files import shown

MAX_FILE_BYTES = 1 << 30


def read_file(path: Path, param: str = "messages") -> bytes:
    """Content of a regular file; RequestError in one line for anything else."""
    try:
        _require_regular(path.stat(), path, param)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _require_regular(status, path, param)  # swapped since it was looked at
            if status.st_size > MAX_FILE_BYTES:
                raise RequestError(
                    f"{shown(str(path))} has {status.st_size / 1e9:.1f} GB; at most "
                    f"{MAX_FILE_BYTES / 1e9:.1f} GB are read",
                    param,
                )
            return file.read(status.st_size)
    except OSError as error:
        raise RequestError(f"cannot read {shown(str(path))}: {error.strerror}", param) from None
    except ValueError:  # a null character
        raise RequestError(f"{shown(str(path))} is not a file name", param) from None


def _require_regular(status: os.stat_result, path: Path, param: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RequestError(f"{shown(str(path))} is not a file", param)


def read_url(url: str, root: Path | None, param: str) -> bytes:
    """What a data URL holds, or a file under `root`; RequestError names what is not allowed."""
    scheme = url.partition(":")[0].lower() if ":" in url else ""
    if scheme == "data":
        return _data(url, param)
    if scheme in ("http", "https", "ftp"):
        raise RequestError(
            f"{shown(url)} is on a network, which is not read from here; send a data: URL", param
        )
    if scheme not in ("", "file"):
        raise RequestError(f"{shown(url)} is not a data: URL or a file", param)
    if root is None:
        raise RequestError(f"{shown(url)} names a file, which is not allowed here", param)
    return _under(url, scheme, root, param)


def _under(url: str, scheme: str, root: Path, param: str) -> bytes:
    try:
        parts = urlsplit(url) if scheme else None
        if parts and parts.netloc not in ("", "localhost"):
            raise RequestError(f"{shown(url)} names another host; write file:///path", param)
        path = (root / (unquote(parts.path) if parts else url)).resolve()
        inside = path.is_relative_to(root.resolve())
    except (ValueError, OSError, RuntimeError):  # a null character, a bad host, a loop of links
        raise RequestError(f"{shown(url)} is not a file name", param) from None
    if not inside:
        raise RequestError(f"{shown(url)} lies outside the directory allowed for files", param)
    return read_file(path, param)


def _data(url: str, param: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise RequestError(f"{shown(url)} is not a data: URL (no comma)", param)
    if len(body) > 2 * MAX_FILE_BYTES:
        raise RequestError(f"the data: URL has {len(body):,} characters; send less", param)
    coded = head.lower().endswith(";base64")
    try:
        if not coded:
            return unquote_to_bytes(body)
        return base64.b64decode(unquote(body).translate(_BLANKS), validate=True)
    except ValueError as error:  # binascii.Error is one; so is half a surrogate pair
        kind = "base64" if coded else "text"
        raise RequestError(
            f"the data: URL is not {kind}: {shown(str(error))[1:-1]}", param
        ) from None


_BLANKS = str.maketrans("", "", " \n\r\t")
