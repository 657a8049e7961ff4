"""Taking safetensors files apart and putting them together, right or wrong, for tests."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hybrid.tiny import TinyShape

SMALL = TinyShape(
    num_hidden_layers=2, n_routed_experts=3, num_experts_per_tok=2, vt_num_hidden_layers=1
)
INDEX = "model.safetensors.index.json"
ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4, "I64": 8, "F64": 8}


def read_shard(path: Path):
    """Return (header, data)."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_shard(path: Path, header, data: bytes, length=None):
    """Write a header, a mapping or raw bytes, that may claim any length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def shards(directory: Path):
    return sorted(directory.glob("*.safetensors"))


def edit_json(path: Path, change):
    """Apply `change` to the parsed file; what it returns, if anything, takes its place."""
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


def all_tensors(directory: Path):
    """Return {name: (dtype, shape, bytes)} of all shards."""
    tensors = {}
    for path in shards(directory):
        header, data = read_shard(path)
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            tensors[name] = (entry["dtype"], entry["shape"], data[begin:end])
    return tensors


def rewrite(directory: Path, tensors: Mapping[str, tuple], index: bool = True):
    """Replace all shards by one that holds these tensors, in this order, and its index."""
    for path in shards(directory):
        path.unlink()
    header, parts, at = {}, [], 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [at, at + len(data)],
        }
        parts.append(data)
        at += len(data)
    write_shard(directory / "model.safetensors", header, b"".join(parts))
    if index:
        weight_map = dict.fromkeys(tensors, "model.safetensors")
        (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    else:
        (directory / INDEX).unlink(missing_ok=True)


def write_sparse_shard(path: Path, tensors: Mapping[str, tuple]):
    """Write a header for {name: (dtype, shape)} over data that is one hole in the file."""
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        end = at + ITEM_BYTES[dtype] * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    write_shard(path, text + b" " * (-len(text) % 8), b"")  # aligned, as published
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + at)
