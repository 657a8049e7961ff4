"""Which safetensors files make up a checkpoint, and what each one holds.

With `model.safetensors.index.json` the index and the headers must say the same; without it every
`*.safetensors` in the directory is a shard.
"""

import os
from collections.abc import Iterable
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NamedTuple

from hybrid.checkpoint.header import TensorInfo, read_header
from hybrid.errors import CheckpointError
from hybrid.model_files import (
    list_model_files,
    open_model_file,
    parse_json_object,
    read_model_file,
    shown,
)

INDEX = "model.safetensors.index.json"
SUFFIX = ".safetensors"
MAX_INDEX_BYTES = 40 << 20  # K2.5 has 25 MB; Python needs up to 25 times this
MAX_SHARDS = 1000  # each one stays open; the usual limit is 1024 files


class Shards(NamedTuple):
    """All tensors under the names the files give them, and one mapping for each file."""

    tensors: dict[str, TensorInfo]
    maps: dict[str, mmap]


def open_shards(model_dir: Path) -> Shards:
    """Map every shard and read every header; raises CheckpointError in one line."""
    present = list_model_files(model_dir)
    index = _read_index(model_dir) if INDEX in present else None
    shard_files = [name for name in present if name.endswith(SUFFIX)]
    files = sorted(set(index.values())) if index is not None else shard_files
    if not files:
        raise CheckpointError(
            f"{model_dir} has no {INDEX} and no *{SUFFIX} file; it is not a checkpoint"
        )
    if len(files) > MAX_SHARDS:
        raise CheckpointError(f"{model_dir} has {len(files)} shards; at most {MAX_SHARDS} are read")
    shards = Shards({}, {})
    for file in files:
        infos, shards.maps[file] = _open_shard(model_dir, file)
        _require_new(shards.tensors, infos)
        shards.tensors.update(infos)
    if index is not None:
        _require_agreement(index, shards.tensors)
    return shards


def _read_index(model_dir: Path) -> dict[str, str]:
    data = read_model_file(model_dir, INDEX, MAX_INDEX_BYTES)
    weight_map: Any = parse_json_object(data, INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{INDEX}: weight_map is {shown(weight_map)}; expected an object")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not file.endswith(SUFFIX):
            raise CheckpointError(
                f"{INDEX}: tensor {shown(name)} is in {shown(file)}; expected a *{SUFFIX} name"
            )
    return weight_map


def _open_shard(model_dir: Path, file: str) -> tuple[dict[str, TensorInfo], mmap]:
    fd = open_model_file(model_dir, file)
    try:
        infos = read_header(fd, file)
        return infos, mmap(fd, 0, access=ACCESS_READ)  # keeps a descriptor of its own
    except (OSError, ValueError) as error:  # ValueError: emptied since its header was read
        raise CheckpointError(f"cannot map {model_dir / file}: {error}") from None
    finally:
        os.close(fd)


def _require_new(known: dict[str, TensorInfo], infos: Iterable[str]) -> None:
    for name in infos:
        if name in known:
            raise CheckpointError(f"tensor {shown(name)} is in two shards: {known[name].file} too")


def _require_agreement(index: dict[str, str], tensors: dict[str, TensorInfo]) -> None:
    for name, file in index.items():
        if name not in tensors or tensors[name].file != file:
            raise CheckpointError(
                f"{INDEX} places tensor {shown(name)} in {file}, which does not hold it"
            )
    for name, info in tensors.items():
        if name not in index:
            raise CheckpointError(f"{info.file} holds tensor {shown(name)}, absent from {INDEX}")
