"""Reading tensors: the right bytes under the right names, and no copy of them."""

import gc
import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hybrid.checkpoint import Checkpoint, expected_tensors
from hybrid.config import ModelConfig
from hybrid.errors import CheckpointError
from hybrid.inventory import take_inventory
from hybrid.tiny import write_tiny
from hybrid.tiny.shards import shard_of
from tests.checkpoint_files import (
    INDEX,
    SMALL,
    all_tensors,
    edit_json,
    read_shard,
    rewrite,
    shards,
    write_sparse_shard,
)

EXPERT = "model.layers.1.mlp.experts.2.down_proj"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("checkpoint") / "tiny", SMALL)


@pytest.fixture
def model_dir(written, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "tiny"))


def opened(model_dir):
    return Checkpoint.open(model_dir, ModelConfig.from_dir(model_dir))


def same_as_stored(checkpoint, model_dir, prefix):
    """Compare every tensor with the bytes of the files, read without the code under test."""
    stored = all_tensors(model_dir)
    for name in checkpoint:
        full = name if name.startswith(("vision_tower.", "mm_projector.")) else prefix + name
        dtype, shape, data = stored.pop(full)
        view = checkpoint.tensor(name)
        assert checkpoint.info(name).dtype == dtype
        assert view.shape == tuple(shape)
        assert view.tobytes() == data
    return stored


def test_every_tensor_has_the_stored_bytes(written):
    with opened(written) as checkpoint:
        assert checkpoint.prefix == "language_model."
        assert len(checkpoint.files) == 5
        assert same_as_stored(checkpoint, written, "language_model.") == {}


def test_the_comparison_notices_one_flipped_bit(model_dir):
    """The planted fault: the check above is able to fail."""
    with opened(model_dir) as checkpoint:
        path = shards(model_dir)[1]
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        other = model_dir.parent / "other"
        shutil.copytree(model_dir, other)
        (other / path.name).write_bytes(raw)
        with pytest.raises(AssertionError):
            same_as_stored(checkpoint, other, "language_model.")


@pytest.mark.oracle
def test_safetensors_reads_the_same(written):
    safetensors = pytest.importorskip("safetensors")
    torch = pytest.importorskip("torch")
    with opened(written) as checkpoint:
        count = 0
        for path in shards(written):
            with safetensors.safe_open(path, "pt") as file:
                for full in file.keys():  # noqa: SIM118  it is no mapping
                    theirs = file.get_tensor(full)
                    if theirs.dtype == torch.bfloat16:
                        theirs = theirs.view(torch.uint16)
                    ours = checkpoint.tensor(full.removeprefix("language_model."))
                    np.testing.assert_array_equal(ours, theirs.numpy(), strict=True)
                    count += 1
        assert count == len(checkpoint)


def test_bare_names_give_the_same_model(written, tmp_path):
    flat = write_tiny(tmp_path / "flat", SMALL, prefix=False)
    with opened(written) as one, opened(flat) as other:
        assert other.prefix == ""
        assert same_as_stored(other, flat, "") == {}
        text = [name for name in one if not name.startswith(("vision", "mm_"))]
        assert list(other) == text
        for name in text:
            np.testing.assert_array_equal(one.tensor(name), other.tensor(name))


def test_types_and_int4(written):
    with opened(written) as checkpoint:
        assert checkpoint.tensor("lm_head.weight").dtype == np.uint16
        bias = checkpoint.tensor("model.layers.1.mlp.gate.e_score_correction_bias")
        assert bias.dtype == np.float32
        assert checkpoint.tensor(f"{EXPERT}.weight_packed").dtype == np.int32
        assert checkpoint.is_int4(EXPERT)
        assert not checkpoint.is_int4("model.layers.0.mlp.down_proj")
        assert not checkpoint.is_int4("model.layers.1.mlp.experts.3.down_proj")
        assert f"{EXPERT}.weight_scale" in checkpoint
        assert "language_model.lm_head.weight" not in checkpoint
        with pytest.raises(CheckpointError, match="'nonsense' is not in the checkpoint"):
            checkpoint.info("nonsense")


def test_a_view_is_read_only_and_no_copy(written):
    with opened(written) as checkpoint:
        one, two = (checkpoint.tensor("lm_head.weight") for _ in range(2))
        assert np.shares_memory(one, two)
        assert not one.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            one[0, 0] = 1


def test_a_view_outlives_the_checkpoint(written):
    checkpoint = opened(written)
    view = checkpoint.tensor("lm_head.weight")
    expected = view.copy()
    checkpoint.close()
    checkpoint.close()
    with pytest.raises(CheckpointError, match=r"closed; tensor lm_head\.weight"):
        checkpoint.tensor("lm_head.weight")
    del checkpoint
    gc.collect()
    np.testing.assert_array_equal(view, expected)


def test_closing_gives_the_files_back(written):
    def count():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = count()
    checkpoint = opened(written)
    assert count() == before + len(checkpoint.files)
    checkpoint.close()
    assert count() == before


def test_a_file_shortened_while_open_is_an_error(model_dir):
    with opened(model_dir) as checkpoint:
        path = model_dir / checkpoint.info("lm_head.weight").file
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(CheckpointError, match=r"-of-000005\.safetensors was shortened"):
            checkpoint.tensor("lm_head.weight")
        assert checkpoint.tensor("model.layers.0.mlp.up_proj.weight").size


def test_an_unaligned_tensor_is_aligned_by_a_copy(model_dir):
    stored = all_tensors(model_dir)
    odd = {"padding": ("U8", (1,), b"\0")}
    rewrite(model_dir, odd | stored)
    with opened(model_dir) as checkpoint:
        assert checkpoint.ignored == ("padding",)
        view = checkpoint.tensor(f"{EXPERT}.weight_packed")
        assert view.flags.aligned
        assert not view.flags.writeable
        same_as_stored(checkpoint, model_dir, "language_model.")


@pytest.mark.parametrize("form", ["single file", "scan"])
def test_without_an_index(model_dir, form):
    if form == "single file":
        rewrite(model_dir, all_tensors(model_dir), index=False)
    else:
        (model_dir / INDEX).unlink()
    with opened(model_dir) as checkpoint:
        assert len(checkpoint.files) == (1 if form == "single file" else 5)
        assert same_as_stored(checkpoint, model_dir, "language_model.") == {}


def test_other_files_beside_an_index_are_not_read(model_dir):
    (model_dir / "consolidated.safetensors").write_bytes(b"anything")
    with opened(model_dir) as checkpoint:
        assert "consolidated.safetensors" not in checkpoint.files


def test_what_the_model_does_not_need_is_counted(model_dir):
    extra = "language_model.model.layers.0.self_attn.rotary_emb.inv_freq"
    tensors = all_tensors(model_dir) | {extra: ("F32", (8,), bytes(32)), "odd": ("I8", (0,), b"")}
    rewrite(model_dir, tensors)
    with opened(model_dir) as checkpoint:
        assert set(checkpoint.ignored) == {extra.removeprefix("language_model."), "odd"}
        assert extra.removeprefix("language_model.") not in checkpoint


@pytest.mark.parametrize(
    ("name", "dtype", "item_bytes"),
    [
        ("model.layers.0.mlp.up_proj.weight", "F32", 4),
        ("model.layers.0.input_layernorm.weight", "F16", 2),
        ("model.layers.1.mlp.gate.e_score_correction_bias", "BF16", 2),
        (f"{EXPERT}.weight_shape", "I64", 8),
        (f"{EXPERT}.weight_shape", None, 0),
    ],
)
def test_other_spellings_that_are_read(model_dir, name, dtype, item_bytes):
    tensors = all_tensors(model_dir)
    _, shape, _ = tensors.pop(f"language_model.{name}")
    if dtype:
        data = bytes(int(np.prod(shape)) * item_bytes)
        tensors[f"language_model.{name}"] = (dtype, shape, data)
    rewrite(model_dir, tensors)
    with opened(model_dir) as checkpoint:
        assert (name in checkpoint) == bool(dtype)
        if dtype:
            assert checkpoint.info(name).dtype == dtype
            assert checkpoint.tensor(name).itemsize == item_bytes


def test_a_download_cache_of_symlinks_is_read(model_dir, tmp_path):
    """<repo>/snapshots/<revision>/<name> -> <repo>/blobs/<hash>, as the hub's cache has it."""
    repo = tmp_path / "models--x--y"
    snapshot = repo / "snapshots" / "0123abcd"
    (repo / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(model_dir.iterdir())):
        path.rename(repo / "blobs" / f"{number:064x}")
        (snapshot / path.name).symlink_to(Path("../../blobs") / f"{number:064x}")
    with opened(snapshot) as checkpoint:
        assert len(checkpoint.files) == 5


def test_a_symlink_within_the_directory_and_to_it_are_read(model_dir, tmp_path):
    first = shards(model_dir)[0]
    (model_dir / "store").mkdir()
    first.rename(model_dir / "store" / "first")
    first.symlink_to(Path("store") / "first")
    (tmp_path / "alias").symlink_to(model_dir)
    with opened(tmp_path / "alias") as checkpoint:
        assert len(checkpoint.files) == 5


def test_expected_names_are_those_the_writer_of_another_project_uses(written):
    """Layer 0 is dense, layer 1 has experts; the spellings are the published ones, in full."""
    header, _ = read_shard(shards(written)[1])
    header.pop("__metadata__")
    layer = "language_model.model.layers.1."
    assert {name for name in header if ".experts." not in name} == {
        f"{layer}{name}"
        for name in (
            "input_layernorm.weight",
            "mlp.gate.e_score_correction_bias",
            "mlp.gate.weight",
            "mlp.shared_experts.down_proj.weight",
            "mlp.shared_experts.gate_proj.weight",
            "mlp.shared_experts.up_proj.weight",
            "post_attention_layernorm.weight",
            "self_attn.kv_a_layernorm.weight",
            "self_attn.kv_a_proj_with_mqa.weight",
            "self_attn.kv_b_proj.weight",
            "self_attn.o_proj.weight",
            "self_attn.q_a_layernorm.weight",
            "self_attn.q_a_proj.weight",
            "self_attn.q_b_proj.weight",
        )
    }
    assert {name for name in header if ".experts.0." in name} == {
        f"{layer}mlp.experts.0.{projection}_proj.weight_{part}"
        for projection, part in itertools.product(
            ("gate", "up", "down"), ("packed", "scale", "shape")
        )
    }


@pytest.mark.slow
def test_a_checkpoint_of_the_published_size_opens(tmp_path):
    """All 208,550 headers of K2.5 over sparse files: 595 GB that take no room."""
    published = Path(__file__).parent / "data" / "kimi_k25_config.json"
    shutil.copy(published, tmp_path / "config.json")
    config = ModelConfig.from_dir(tmp_path)
    weight_map = {}
    groups = itertools.groupby(
        expected_tensors(config), lambda want: shard_of(want, config.text.num_hidden_layers)
    )
    for number, wants in groups:
        file = f"model-{number + 1:05d}-of-000064.safetensors"
        tensors = {
            want.name
            if want.component in ("vision", "projector")
            else f"language_model.{want.name}": (want.dtypes[0], want.shape)
            for want in wants
        }
        write_sparse_shard(tmp_path / file, tensors)
        weight_map |= dict.fromkeys(tensors, file)
    (tmp_path / INDEX).write_text("{}")
    edit_json(tmp_path / INDEX, lambda _: {"weight_map": weight_map})
    with Checkpoint.open(tmp_path, config) as checkpoint:
        assert len(checkpoint) == 208_550
        assert len(checkpoint.files) == 64
        assert take_inventory(config, checkpoint).bytes == 595_148_192_736
        last = checkpoint.tensor("model.layers.60.mlp.experts.383.down_proj.weight_packed")
        assert last.shape == (7168, 256)
        assert not last.any()
