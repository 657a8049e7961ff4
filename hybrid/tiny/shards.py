"""Write safetensors shards and their index, with the names the published checkpoint has.

Shard names have a 5-digit index and a 6-digit total. By default the shards divide the model as
the published ones seem to: one a layer, then embedding with head and final norm, then projector,
then vision tower (spec §2.1).
"""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybrid.checkpoint.expected import ExpectedTensor
from hybrid.checkpoint.shards import INDEX

ALIGNMENT = 8  # of the data; items of 4 bytes come before those of 2


def shard_of(want: ExpectedTensor, layers: int) -> int:
    """Number the shard of a tensor from 0, as the published checkpoint divides them."""
    if want.name.startswith("model.layers."):
        return int(want.name.split(".")[2])
    return layers + {"projector": 1, "vision": 2}.get(want.component, 0)


def write_shards(
    directory: Path, shards: Iterable[Mapping[str, tuple[str, NDArray[np.generic]]]], total: int
) -> None:
    """Write `total` shards, each a mapping of full name to dtype and array, and the index."""
    weight_map: dict[str, str] = {}
    total_size = 0
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{total:06d}.safetensors"
        total_size += _write_shard(directory / file, tensors)
        weight_map |= dict.fromkeys(tensors, file)
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index))  # indented, 208,550 lines would take seconds


def _write_shard(path: Path, tensors: Mapping[str, tuple[str, NDArray[np.generic]]]) -> int:
    ordered = sorted(tensors.items(), key=lambda item: -item[1][1].itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, array) in ordered:
        end = at + array.nbytes
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": (at, end)}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, (_, array) in ordered:
            file.write(array.tobytes())
    return at
