"""Sizes of K2.5 as published, added up from its configuration (spec §2.3), and of real files."""

from dataclasses import replace
from pathlib import Path

import pytest

from hybrid.checkpoint import Checkpoint, expected_tensors
from hybrid.config import ModelConfig
from hybrid.inventory import take_inventory
from hybrid.tiny import write_tiny
from tests.checkpoint_files import SMALL, all_tensors, rewrite, shards

PUBLISHED = Path(__file__).parent / "data"
EXPERTS = 60 * 384
EXPERT_BYTES = 24_772_632


@pytest.fixture(scope="module")
def k25(tmp_path_factory):
    directory = tmp_path_factory.mktemp("config")
    (directory / "config.json").write_bytes((PUBLISHED / "kimi_k25_config.json").read_bytes())
    return ModelConfig.from_dir(directory)


@pytest.fixture(scope="module")
def sizes(k25):
    return take_inventory(k25)


def component(inventory, name):
    return next(size for size in inventory.components if size.name == name)


def test_the_totals_of_the_published_checkpoint(sizes):
    assert sizes.tensors == 208_550
    assert sizes.bytes == 595_148_192_736


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kv_lora_rank", 511),
        ("moe_intermediate_size", 2080),
        ("n_shared_experts", 2),
        ("first_k_dense_replace", 2),
        ("q_lora_rank", 1537),
        ("v_head_dim", 127),
    ],
)
def test_the_total_notices_any_wrong_dimension(k25, sizes, field, value):
    """The planted fault: the total is exact, so no error of shape can hide in it."""
    other = replace(k25, text=replace(k25.text, **{field: value}))
    assert take_inventory(other).bytes != sizes.bytes


def test_experts(k25, sizes):
    routed = component(sizes, "routed")
    assert routed.tensors == EXPERTS * 9
    assert routed.bytes == EXPERTS * EXPERT_BYTES
    assert routed.bytes == pytest.approx(570.76e9, abs=5e6)
    assert routed.loaded_bytes == EXPERTS * (EXPERT_BYTES - 24)  # without the logical shapes
    assert routed.tier == "RAM"
    embedding = component(sizes, "embedding")
    assert sizes.tier_token_bytes("RAM") == 480 * 24_772_608 + 14_336
    assert sizes.tier_bytes("RAM") == routed.loaded_bytes + embedding.loaded_bytes


def test_everything_else(sizes):
    assert sizes.bytes - component(sizes, "routed").bytes == pytest.approx(24.39e9, abs=5e6)
    assert component(sizes, "embedding").bytes == 2_348_810_240
    assert component(sizes, "head").bytes == 2_348_810_240
    assert component(sizes, "embedding").token_bytes == 14_336
    vision, projector = component(sizes, "vision"), component(sizes, "projector")
    assert vision.bytes + projector.bytes == pytest.approx(0.94e9, abs=5e6)
    assert vision.token_bytes == projector.token_bytes == 0


def test_parameters(sizes):
    vision, projector = component(sizes, "vision"), component(sizes, "projector")
    assert vision.parameters == 416_866_032
    assert projector.parameters == 54_277_888
    assert sizes.parameters - 416_866_032 - 54_277_888 == 1_026_408_232_448
    assert sizes.token_parameters == pytest.approx(32.86e9, abs=5e6)
    without_table = sizes.token_parameters - component(sizes, "embedding").parameters
    assert without_table == pytest.approx(31.69e9, abs=5e6)


def test_kv_cache(k25, sizes):
    assert sizes.kv_token_bytes == 70_272
    assert sizes.kv_token_bytes * k25.text.max_position_embeddings == pytest.approx(
        18.4e9, rel=2e-3
    )


def test_the_list_has_no_name_twice(k25):
    names = [want.name for want in expected_tensors(k25)]
    assert len(names) == len(set(names))


def test_a_checkpoint_adds_up_to_its_files(tmp_path):
    directory = write_tiny(tmp_path / "tiny", SMALL)
    config = ModelConfig.from_dir(directory)
    with Checkpoint.open(directory, config) as checkpoint:
        inventory = take_inventory(config, checkpoint)
    assert inventory == take_inventory(config)
    data = sum(len(data) for _, _, data in all_tensors(directory).values())
    assert inventory.bytes == data
    assert inventory.tensors == len(all_tensors(directory))


def test_what_the_files_really_hold_counts(tmp_path):
    """No logical shapes, and a head in float32: the checkpoint decides, not the published form."""
    directory = write_tiny(tmp_path / "tiny", SMALL)
    stored = {
        name: tensor
        for name, tensor in all_tensors(directory).items()
        if not name.endswith(".weight_shape")
    }
    _, shape, data = stored["language_model.lm_head.weight"]
    stored["language_model.lm_head.weight"] = ("F32", shape, bytes(2 * len(data)))
    rewrite(directory, stored)
    config = ModelConfig.from_dir(directory)
    published = take_inventory(config)
    with Checkpoint.open(directory, config) as checkpoint:
        found = take_inventory(config, checkpoint)
    assert len(shards(directory)) == 1
    assert component(found, "head").bytes == 2 * component(published, "head").bytes
    assert component(found, "head").parameters == component(published, "head").parameters
    routed = component(found, "routed")
    assert routed.bytes == routed.loaded_bytes == component(published, "routed").loaded_bytes
    assert routed.tensors == component(published, "routed").tensors * 2 // 3
