"""One safetensors file: its header, checked before a byte of data is believed.

    u64 little endian n | n bytes of JSON, padded with spaces | data
    JSON: {"__metadata__": {str: str}, NAME: {"dtype", "shape", "data_offsets": [begin, end]}, ...}

Offsets count from the start of the data. The tensors must tile it: in order of their begin, each
starts where the one before ends, and the last one ends with the file.
"""

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from hybrid.errors import CheckpointError
from hybrid.model_files import parse_json_object, shown

MAX_HEADER_BYTES = 32 << 20  # K2.5 has half a MB a shard; Python needs up to 25 times this
MAX_DIMENSIONS = 8

ITEM_BYTES: Mapping[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}


class TensorInfo(NamedTuple):
    """Where a tensor lies. `offset` counts from the start of the file."""

    dtype: str  # as safetensors spells it: "BF16", "I32", ...
    shape: tuple[int, ...]
    file: str  # name of the shard
    offset: int
    nbytes: int


def read_header(fd: int, file: str) -> dict[str, TensorInfo]:
    """Read and check the header of an open shard; raises CheckpointError naming file and tensor."""
    size = os.fstat(fd).st_size
    prefix = os.pread(fd, 8, 0)
    if len(prefix) < 8:
        raise CheckpointError(f"{file} has {size} bytes; too short for a safetensors file")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{file} claims a header of {length} bytes; at most {MAX_HEADER_BYTES} are read "
            "(is it a safetensors file?)"
        )
    if 8 + length > size:
        raise CheckpointError(
            f"{file} ends inside its header ({size} of {8 + length} bytes); download it again"
        )
    entries = parse_json_object(_pread(fd, length, 8), f"the header of {file}")
    entries.pop("__metadata__", None)
    infos = {
        name: _tensor(file, name, entry, data_start=8 + length) for name, entry in entries.items()
    }
    _require_tiling(file, infos, 8 + length, size)
    return infos


def _pread(fd: int, length: int, offset: int) -> bytes:
    parts = []
    while length:
        part = os.pread(fd, length, offset)
        if not part:  # shortened since fstat: the JSON will not parse
            break
        parts.append(part)
        length, offset = length - len(part), offset + len(part)
    return b"".join(parts)


def _tensor(file: str, name: str, entry: Any, data_start: int) -> TensorInfo:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _refuse(file, name, "needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _refuse(file, name, f"has the unknown dtype {shown(dtype)}")
    if not _is_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise _refuse(file, name, f"has the shape {shown(shape)}; expected at most 8 counts")
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _refuse(file, name, f"has the offsets {shown(offsets)}; expected [begin, end]")
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        spans = f"is {dtype} {shown(shape)} but spans {end - begin} bytes"
        raise _refuse(file, name, spans)
    return TensorInfo(dtype, tuple(shape), file, data_start + begin, end - begin)


def _is_counts(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    for n in value:  # noqa: SIM110  a generator takes twice as long, and there are 400,000 lists
        if type(n) is not int or not 0 <= n < 1 << 63:
            return False
    return True


def _refuse(file: str, name: str, fault: str) -> CheckpointError:
    return CheckpointError(f"{file}: tensor {shown(name)} {fault}")


def _require_tiling(file: str, infos: Mapping[str, TensorInfo], start: int, size: int) -> None:
    at = start
    for name, info in sorted(infos.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if info.offset != at:
            fault = "overlaps the one before it" if info.offset < at else "leaves a hole before it"
            raise _refuse(file, name, f"{fault} (byte {info.offset})")
        at += info.nbytes
        if at > size:
            raise _refuse(
                file, name, f"ends at byte {at} but the file has {size}; download it again"
            )
    if at != size:
        raise CheckpointError(f"{file} has {size - at} bytes after its last tensor")
