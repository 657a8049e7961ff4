"""Record files and sources of tiny checkpoints, and the records they must hold."""

import struct
from contextlib import contextmanager

import numpy as np
import xxhash

from hybrid.cache.direct_io import pages
from hybrid.cache.fingerprint import contents_of
from hybrid.cache.record_file import Contents
from hybrid.cache.shard_source import ShardSource
from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig
from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.record import RecordShape

PAGE = 4096
SMALL = Contents(RecordShape(64, 32), 1, 3, 5, bytes(range(16)))


def slot(contents):
    """A slot that holds anything but zeros."""
    memory = pages(contents.stride, "a test")
    memory[:] = 0xA5
    return memory


def places(contents):
    return [contents.place(index) for index in range(contents.records)]


@contextmanager
def opened(model_dir):
    """(config.text, checkpoint) while the checkpoint is open."""
    config = ModelConfig.from_dir(model_dir)
    with Checkpoint.open(model_dir, config) as checkpoint:
        yield config.text, checkpoint


def contents(model_dir):
    with opened(model_dir) as (text, checkpoint):
        return contents_of(model_dir, text, checkpoint)


def shard_source(model_dir):
    with opened(model_dir) as (text, checkpoint):
        return ShardSource(model_dir, text, checkpoint)


def true_records(model_dir):
    """[records, record_bytes] as ExpertLayer.set_expert makes them from the mapped shards."""
    with opened(model_dir) as (text, checkpoint):
        records = []
        for at in range(text.first_k_dense_replace, text.num_hidden_layers):
            layer = ExpertLayer(
                text.n_routed_experts, text.hidden_size, text.moe_intermediate_size, threads=1
            )
            for expert in range(text.n_routed_experts):
                prefix = f"model.layers.{at}.mlp.experts.{expert}"
                layer.set_expert(
                    expert,
                    **{
                        name: tuple(
                            checkpoint.tensor(f"{prefix}.{name}_proj.weight_{kind}")
                            for kind in ("packed", "scale")
                        )
                        for name in ("gate", "up", "down")
                    },
                )
            records.append(np.concatenate([shard.records for shard in layer.shards], axis=1))
    return np.concatenate(records)


def true_file(of, records):
    """The bytes of a record file, put together by the picture in record_file.py."""
    from hybrid.cache.record_file import LAYOUT

    count, size = records.shape
    stride = -(-size // PAGE) * PAGE
    table = b"".join(struct.pack("<Q", xxhash.xxh3_64_intdigest(r.tobytes())) for r in records)
    start = PAGE + -(-len(table) // PAGE) * PAGE
    shape = of.shape

    def head(own):
        return (
            b"KLRECORD"
            + struct.pack("<3I", 1, shape.hidden, shape.intermediate)
            + struct.pack("<3I", of.first_layer, of.layers, of.experts)
            + bytes(16)
            + struct.pack("<4Q", size, stride, start, start + count * stride)
            + of.fingerprint
            + struct.pack("<2Q", LAYOUT, own)
        )

    file = bytearray(start + count * stride)
    own = xxhash.xxh3_64_intdigest(head(0) + table)
    file[:112] = head(own)
    file[PAGE : PAGE + len(table)] = table
    for index, record in enumerate(records):
        at = start + index * stride
        file[at : at + size] = record.tobytes()
    return bytes(file)


def small_records(of=SMALL, seed=0):
    """Random bytes in the size of records: what a file does not look into."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (of.records, of.shape.nbytes), dtype=np.uint8)
