"""What a model takes: the published numbers, and what loader and kernels say of the same."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from hybrid import load_options, reservation, timeline
from hybrid.checkpoint.expected import expected_tensors
from hybrid.checkpoint.header import ITEM_BYTES
from hybrid.config import ModelConfig
from hybrid.cpu_dense.rows import MAX_BLOCK
from hybrid.cpu_experts.record import RecordShape
from hybrid.gpu_attention import backbone as torch_backbone
from hybrid.inventory import take_inventory
from hybrid.placement import builtin_config
from hybrid.placement.needs import BLOCK_TOKENS, PASS_TOKENS, needs

K25 = builtin_config()


def test_k25_in_bf16():
    found = needs(K25, weights="bf16", vision=True)
    assert found.record_bytes == found.slot_bytes == 24_772_608
    assert found.records == 23_040
    assert found.token_experts_bytes == 480 * 24_772_608
    assert found.kv_token_bytes == 70_272
    read = found.token_bytes("attention", "norms", "dense", "router", "shared", "head")
    assert read == pytest.approx(21.1e9, rel=0.002)


@pytest.mark.parametrize("shape", ["k2.5", "k2-thinking", "two-dense-two-shared"])
def test_tiny_models_take_what_their_files_hold(shape, checkpoint_dir):
    config = ModelConfig.from_dir(checkpoint_dir(shape))
    found = needs(config, weights="bf16", vision=True)
    text, sizes = config.text, take_inventory(config)
    record = RecordShape(text.hidden_size, text.moe_intermediate_size)
    assert found.record_bytes == record.nbytes
    loaded = sum(each.loaded_bytes for each in sizes.components)
    assert sum(found.backbone.values()) + found.routed_bytes == loaded


def test_int8_takes_what_the_loader_says():
    """Of K2.5, tensor by tensor: no matrix of it has an odd number of groups."""
    found = needs(K25, weights="int8", vision=False)
    options = SimpleNamespace(backbone_weights="int8")
    total = 0
    for want in expected_tensors(replace(K25, vision=None)):
        if want.component == "routed":
            continue
        size = ITEM_BYTES[want.dtypes[0]]
        for extent in want.shape:
            size *= extent
        info = SimpleNamespace(shape=want.shape, nbytes=size)
        one = SimpleNamespace(info=lambda _, info=info: info)
        total += reservation.backbone_bytes(one, want.name, options)
    assert sum(found.backbone.values()) == total
    assert total < sum(needs(K25, weights="bf16", vision=False).backbone.values())


def test_without_vision_its_bytes_are_nowhere():
    found = needs(K25, weights="bf16", vision=False)
    assert not {"vision", "projector"} & found.backbone.keys()


def test_arithmetic_is_twice_the_parameters():
    """Two operations a weight: 32 billion parameters a token, less the embedding's row."""
    found = needs(K25, weights="bf16", vision=True)
    experts = found.moe_layers * found.per_token * found.expert_flop
    used = sum(found.token_flop.values()) + experts
    assert used / 2 == pytest.approx(31.7e9, rel=0.005)
    # 64 heads x (512 + 64 + 512) x 61 layers, multiply-adds
    assert found.absorbed_flop == 2 * 64 * (512 + 64 + 512) * 61


def test_passes_and_blocks_are_the_runtimes():
    assert timeline.PASS_TOKENS == PASS_TOKENS
    assert MAX_BLOCK == torch_backbone.MAX_BLOCK == BLOCK_TOKENS


def test_a_context_asked_for_by_nobody_is_the_loaders():
    from cli.plan import CONTEXT
    from hybrid.placement import PlanOptions

    assert load_options.DEFAULT_KV_TOKENS == CONTEXT == PlanOptions().context
