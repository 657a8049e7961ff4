"""Loading, refusals, and what the class promises beside the mathematics."""

import gc
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig
from hybrid.cpu_dense import CpuBackbone, tiles
from hybrid.cpu_dense import backbone as backbone_module
from hybrid.cpu_dense import weights as weights_module
from hybrid.cpu_experts import arena
from hybrid.errors import ConfigError, KernelError, PlacementError
from hybrid.tiny import TinyShape, write_tiny
from tests.cpu_dense.models import (
    SMALL,
    backbone_of,
    random_tensors,
    stream,
    truncated_bf16,
    widened,
)


def test_loads_a_checkpoint_in_the_published_format(tmp_path):
    write_tiny(tmp_path, TinyShape(num_hidden_layers=2))
    config = ModelConfig.from_dir(tmp_path)
    seen = []
    with Checkpoint.open(tmp_path, config) as checkpoint:
        backbone = CpuBackbone.load(
            config.text, checkpoint, kv_tokens=16, threads=2, progress=seen.append
        )
        head = widened(checkpoint.tensor("lm_head.weight"))
    x = stream(config.text, 2)
    assert backbone.attend(0, backbone.embed([1, 2, 3]), 0).shape == (3, config.text.hidden_size)
    assert backbone.logits(x).shape == (2, len(head))  # weights outlive the checkpoint
    assert [event.phase for event in seen] == sorted(event.phase for event in seen)
    for phase in ("kernels", "weights"):
        events = [event for event in seen if event.phase == phase]
        done = [event.done for event in events]
        assert done == sorted(done)
        assert {event.total for event in events} == {done[-1]}


def mapped_files(directory):
    """Files below the directory that this process maps."""
    return [
        line for line in Path("/proc/self/maps").read_text().splitlines() if str(directory) in line
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_no_file_of_the_model_is_needed_after_loading(tmp_path):
    """A mapped file that is cut short kills its reader with SIGBUS."""
    write_tiny(tmp_path, TinyShape(num_hidden_layers=2))
    config = ModelConfig.from_dir(tmp_path)
    with Checkpoint.open(tmp_path, config) as checkpoint:
        backbone = CpuBackbone.load(config.text, checkpoint, kv_tokens=16, threads=1)
        kept = checkpoint.tensor("model.norm.weight")
    assert mapped_files(tmp_path)  # one view is enough to be seen
    del kept
    gc.collect()
    assert not mapped_files(tmp_path)
    before = backbone.embed([1, 2, 3])
    for shard in tmp_path.glob("*.safetensors"):
        os.truncate(shard, 0)
    assert np.array_equal(backbone.embed([1, 2, 3]), before)


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.float16])
def test_the_embedding_is_a_copy_without_rounding(kind):
    tensors = random_tensors(SMALL)
    name = "model.embed_tokens.weight"
    table = np.random.default_rng(0).uniform(1, 2, tensors[name].shape).astype(np.float32)
    tensors[name] = truncated_bf16(table) if kind == np.uint16 else table.astype(kind)
    want = widened(tensors[name])[[0, 7, 299]]
    backbone = backbone_of(SMALL, tensors)
    tensors[name][:] = 0
    assert np.array_equal(backbone.embed([0, 7, 299]), want)


def test_weights_and_cache_lie_in_the_arena(monkeypatch):
    reserved = []
    allocate = arena.allocate

    def record(nbytes, *options):
        reserved.append(nbytes)
        return allocate(nbytes, *options)

    for module in (tiles, weights_module, backbone_module):
        monkeypatch.setattr(module, "allocate", record)
    backbone = backbone_of(SMALL, random_tensors(SMALL))
    assert backbone.cache.nbytes in reserved
    assert backbone._embedding.nbytes in reserved
    assert tiles.BF16.nbytes(SMALL.vocab_size, SMALL.hidden_size) in reserved  # lm_head


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_other_dtypes_are_rounded_to_bf16(kind):
    """Except that these values are bf16 already, so nothing may change."""
    tensors = random_tensors(SMALL)
    converted = random_tensors(SMALL)
    for name, values in tensors.items():
        if values.dtype == np.uint16:
            exact = widened(values)
            if np.array_equal(exact.astype(kind).astype(np.float64), exact):
                converted[name] = exact.astype(kind)
    assert sum(v.dtype == kind for v in converted.values()) > 3
    x = stream(SMALL, 3)
    ours, theirs = backbone_of(SMALL, tensors), backbone_of(SMALL, converted)
    assert np.array_equal(ours.attend(0, x, 0), theirs.attend(0, x, 0))
    assert np.array_equal(ours.logits(x), theirs.logits(x))
    assert np.array_equal(ours.embed([5]), theirs.embed([5]))


def test_without_a_shared_expert():
    text = replace(SMALL, n_shared_experts=0)
    backbone, x = backbone_of(text, random_tensors(SMALL)), stream(SMALL, 2)
    routing = backbone.route(1, x)
    assert backbone.shared(1, routing) is None
    assert np.array_equal(backbone.combine(x, None, x), x + x)


def test_weights_of_an_unknown_kind_are_refused():
    with pytest.raises(ConfigError, match="backbone weights are 'int4'; choose bf16 or int8"):
        backbone_of(SMALL, random_tensors(SMALL), weights="int4")


def test_a_tensor_of_another_shape_is_refused_by_name():
    tensors = random_tensors(SMALL)
    name = "model.layers.1.self_attn.q_b_proj.weight"
    tensors[name] = tensors[name][:-1]
    with pytest.raises(ConfigError, match=rf"{name} is \[71, 48\]; config.json implies \[72, 48\]"):
        backbone_of(SMALL, tensors)


def test_a_cache_that_no_machine_holds_is_refused():
    with pytest.raises(PlacementError, match="lower kv_tokens"):
        backbone_of(SMALL, random_tensors(SMALL), kv_tokens=1 << 50)


@pytest.mark.parametrize("start", [-1, 318, 1 << 40])
def test_positions_outside_the_cache_are_refused(start):
    backbone = backbone_of(SMALL, random_tensors(SMALL), kv_tokens=320)
    backbone.attend(0, stream(SMALL, 3), 317)
    with pytest.raises(KernelError, match="do not fit the cache of 320"):
        backbone.attend(0, stream(SMALL, 3), start)


@pytest.mark.parametrize("ids", [[], [-1], [300]])
def test_token_ids_outside_the_table_are_refused(ids):
    with pytest.raises(KernelError, match=r"token ids must be 0…299"):
        backbone_of(SMALL, random_tensors(SMALL)).embed(ids)


@pytest.mark.parametrize("shape", [(0, 64), (513, 64), (1, 63)])
def test_blocks_that_scratch_cannot_hold_are_refused(shape):
    backbone, x = backbone_of(SMALL, random_tensors(SMALL)), np.zeros(shape, np.float32)
    assert backbone.max_block == 512
    verbs = (backbone.logits, lambda x: backbone.attend(0, x, 0), lambda x: backbone.dense(0, x))
    for verb in verbs:
        with pytest.raises(KernelError, match="expected 1…512 rows of 64"):
            verb(x)


def placed(x, row, rows):
    """What `insert` makes, by one line a row; x stays as it is."""
    return np.stack([rows[i - row] if row <= i < row + len(rows) else x[i] for i in range(len(x))])


def shifted(x, row, rows):
    x[row + 1 : row + 1 + len(rows)] = rows[: len(x) - row - 1]
    return x


@pytest.mark.parametrize(("row", "count"), [(0, 1), (0, 5), (2, 2), (3, 2), (4, 1), (5, 0)])
def test_rows_of_a_picture_take_their_places_without_rounding(row, count):
    backbone, rows = backbone_of(SMALL, random_tensors(SMALL)), stream(SMALL, count, seed=5)
    x = backbone.embed([1, 2, 3, 4, 5])
    want = placed(x, row, rows)
    assert count == 0 or not np.array_equal(shifted(x.copy(), row, rows), want)
    kept = rows.copy()
    x = backbone.insert(x, row, rows)
    assert np.array_equal(x, want)
    assert x.dtype == np.float32
    assert np.array_equal(rows, kept)


def test_a_picture_of_embeddings_is_the_words():
    """Rows of the table, inserted, go the way of their tokens; the table itself stays."""
    backbone = backbone_of(SMALL, random_tensors(SMALL))
    words, table = backbone.embed([7, 8, 9, 10]), backbone.embed(range(300))
    want = backbone.logits(backbone.dense(0, backbone.attend(0, words, 0)))
    x = backbone.insert(backbone.embed([7, 99, 99, 10]), 1, words[1:3])
    assert np.array_equal(backbone.logits(backbone.dense(0, backbone.attend(0, x, 0))), want)
    assert np.array_equal(backbone.embed(range(300)), table)


@pytest.mark.parametrize(
    ("row", "shape"), [(-1, (1, 64)), (3, (3, 64)), (6, (1, 64)), (0, (1, 63)), (0, (64,))]
)
def test_rows_that_do_not_fit_are_refused(row, shape):
    backbone = backbone_of(SMALL, random_tensors(SMALL))
    x = backbone.embed([1, 2, 3, 4, 5])
    before = x.copy()
    with pytest.raises(KernelError, match="do not fit"):
        backbone.insert(x, row, np.ones(shape, np.float32))
    assert np.array_equal(x, before)


def test_inputs_are_left_alone():
    backbone, x = backbone_of(SMALL, random_tensors(SMALL)), stream(SMALL, 4)
    before = x.copy()
    backbone.attend(0, x, 0)
    backbone.dense(0, x)
    routing = backbone.route(1, x)
    hidden = routing.hidden.copy()
    backbone.combine(x, backbone.shared(1, routing), hidden)
    backbone.logits(x)
    assert np.array_equal(x, before)
    assert np.array_equal(routing.hidden, hidden)
