"""The fingerprint follows the routed experts, and nothing else."""

import os
import shutil

import numpy as np
import pytest

from hybrid.cache import fingerprint as module
from hybrid.cache.fingerprint import contents_of, fingerprint
from hybrid.errors import CheckpointError, ConfigError
from hybrid.tiny import TinyShape, write_tiny
from tests.cache import record_cases as cases
from tests.checkpoint_files import all_tensors, rewrite, shards

SHAPE = TinyShape(num_hidden_layers=3, n_routed_experts=6, num_experts_per_tok=2)


def of(directory):
    with cases.opened(directory) as (text, checkpoint):
        return fingerprint(directory, text, checkpoint)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("print") / "model", SHAPE, seed=1, vision=False)


@pytest.fixture
def own(model, tmp_path):
    return shutil.copytree(model, tmp_path / "own", copy_function=shutil.copyfile)


def change(directory, wanted):
    """Flip the lowest bit of every byte of the tensors that `wanted` names."""
    tensors = all_tensors(directory)
    hit = [name for name in tensors if wanted(name)]
    assert hit
    for name in hit:
        dtype, shape, data = tensors[name]
        tensors[name] = dtype, shape, (np.frombuffer(data, np.uint8) ^ 1).tobytes()
    rewrite(directory, tensors)


def test_a_copy_has_the_same(model, own):
    for path in own.iterdir():
        os.utime(path, (1, 1))
    assert of(own) == of(model)
    assert len(of(own)) == 16


def test_how_tensors_are_divided_and_named_does_not_count(model, own, tmp_path):
    tensors = all_tensors(own)
    rewrite(own, {name.removeprefix("language_model."): tensors[name] for name in sorted(tensors)})
    assert len(shards(own)) == 1
    assert of(own) == of(model)


def test_the_backbone_does_not_count(model, own):
    change(own, lambda name: ".mlp.experts." not in name)
    assert of(own) == of(model)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda name: name.endswith("weight_scale"),
        lambda name: name.endswith("weight_packed"),
        lambda name: ".layers.2.mlp.experts." in name,
        lambda name: "down_proj.weight_scale" in name and ".experts." in name,
    ],
    ids=["scales", "codes", "one layer", "down"],
)
def test_changed_experts_are_seen(model, own, wanted):
    change(own, wanted)
    assert of(own) != of(model)


def test_other_weights_and_other_sizes_are_seen(model, tmp_path):
    other = write_tiny(tmp_path / "seed", SHAPE, seed=2, vision=False)
    wide = TinyShape(num_hidden_layers=3, n_routed_experts=8, num_experts_per_tok=2)
    more = write_tiny(tmp_path / "wide", wide, seed=1, vision=False)
    assert len({of(model), of(other), of(more)}) == 3


def test_what_no_sample_meets_is_not_seen(model, own):
    """The limit that the module states: one scale tensor of one expert, not among the samples."""
    with cases.opened(model) as (text, _):
        sampled = set(module._sampled(text))
    spared = next(
        name
        for name in sorted(all_tensors(own))
        if name.endswith("weight_scale") and name.removeprefix("language_model.") not in sampled
    )
    change(own, lambda name: name == spared)
    assert of(own) == of(model)


def test_every_layer_is_sampled_in_every_matrix_over_the_layers():
    text = type("Text", (), {"n_routed_experts": 384, "first_k_dense_replace": 1,
                             "num_hidden_layers": 61})  # fmt: skip
    names = module._sampled(text)
    assert len(names) == len(set(names)) == 60 * 4 * 2
    assert {name.split(".")[2] for name in names} == {str(layer) for layer in range(1, 61)}
    assert len({name.split(".")[5] for name in names}) == 4 * 60
    kinds = [name.split(".experts.")[1].split(".", 1)[1] for name in names]
    assert {kinds.count(kind) for kind in set(kinds)} == {80}
    assert len(set(kinds)) == 6


def test_a_shard_cut_short_is_one_line(own):
    with cases.opened(own) as (text, checkpoint):
        for path in shards(own):
            os.truncate(path, 4096)
        with pytest.raises(CheckpointError, match="was shortened while in use"):
            fingerprint(own, text, checkpoint)


def test_a_model_without_experts_has_no_records(tmp_path):
    dense = write_tiny(
        tmp_path / "dense", TinyShape(num_hidden_layers=1), seed=1, vision=False, prefix=False
    )
    with (
        cases.opened(dense) as (text, checkpoint),
        pytest.raises(ConfigError, match="no routed experts"),
    ):
        contents_of(dense, text, checkpoint)
