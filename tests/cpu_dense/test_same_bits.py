"""Placement and chunking change speed, never tokens: equality of every bit, not closeness."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hybrid import yarn
from hybrid.cpu_dense import CpuBackbone
from tests.cpu_dense.models import SHAPES, SMALL, backbone_of, random_tensors

WIDE = replace(  # large enough for every phase to be cut into units
    SMALL,
    hidden_size=1024,
    num_attention_heads=8,
    q_lora_rank=256,
    kv_lora_rank=128,
    qk_nope_head_dim=64,
    v_head_dim=64,
    intermediate_size=1000,
    moe_intermediate_size=512,
    vocab_size=3001,
    n_routed_experts=100,
)
TOKENS = 150  # three blocks of positions, the last one partial
CHUNKS = {
    "one by one": [1] * TOKENS,
    "ragged": [1, 7, 64, 3, 60, 15],
    "across a block": [63, 2, 85],
}


def run(backbone: CpuBackbone, chunks: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Logits of all positions, and the cache; experts answer with their input."""
    text = backbone.text
    ids = np.random.default_rng(5).integers(0, text.vocab_size, sum(chunks)).tolist()
    logits, start = [], 0
    for count in chunks:
        x = backbone.embed(ids[start : start + count])
        for layer in range(text.num_hidden_layers):
            x = backbone.attend(layer, x, start)
            if text.is_moe(layer):
                routing = backbone.route(layer, x)
                routed = routing.hidden * routing.weights[:, :1] + routing.expert_ids[:, :1]
                shared = backbone.shared(layer, routing)
                x = backbone.combine(x, shared, routed.astype(np.float32))
            else:
                x = backbone.dense(layer, x)
        logits.append(backbone.logits(x))
        start += count
    return np.concatenate(logits), backbone.cache[:, :start].copy()


def digest(threads: int, chunks: Sequence[int], weights: str = "bf16") -> bytes:
    backbone = backbone_of(WIDE, random_tensors(WIDE), threads=threads, weights=weights)
    logits, cache = run(backbone, chunks)
    assert np.isfinite(logits).all()
    return logits.tobytes() + cache.tobytes()


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())
def test_any_chunking_of_a_prompt(text, chunks):
    backbone = backbone_of(text, random_tensors(text))
    whole, rows = run(backbone, [TOKENS])
    backbone.cache.fill(0)
    logits, cache = run(backbone, chunks)
    assert np.array_equal(cache, rows)
    assert np.array_equal(logits, whole)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("chunks", [[TOKENS], *CHUNKS.values()], ids=["whole", *CHUNKS])
def test_any_number_of_threads(threads, chunks):
    assert digest(threads, chunks) == digest(1, [TOKENS])


@pytest.mark.parametrize("name", ["small", "odd"])
def test_any_chunking_with_int8_weights(name):
    backbone = backbone_of(SHAPES[name], random_tensors(SHAPES[name]), weights="int8")
    whole, rows = run(backbone, [TOKENS])
    for chunks in CHUNKS.values():
        backbone.cache.fill(0)
        logits, cache = run(backbone, chunks)
        assert np.array_equal(cache, rows)
        assert np.array_equal(logits, whole)


def test_any_number_of_threads_with_int8_weights():
    whole = digest(1, [TOKENS], "int8")
    assert digest(2, CHUNKS["ragged"], "int8") == whole
    assert digest(3, [TOKENS], "int8") == whole
    assert digest(1, [TOKENS]) != whole


@pytest.mark.parametrize("start", [100, 71_000, 262_000])
def test_rotation_tables_do_not_depend_on_the_block(start):
    """numpy's float32 cosine changes its algorithm near 71,476, element by element."""
    text = replace(SMALL, qk_rope_head_dim=64)
    whole = yarn.cos_sin(text, start, 133)
    for index in (0, 1, 57, 132):
        for table, alone in zip(whole, yarn.cos_sin(text, start + index, 1), strict=True):
            assert np.array_equal(table[index], alone[0])


def test_rows_after_a_block_are_never_read():
    """A cancelled block leaves undefined rows behind; NaN there must not leak."""
    backbone = backbone_of(SMALL, random_tensors(SMALL))
    whole, _ = run(backbone, [TOKENS])
    backbone.cache.fill(0x7FFF)  # NaN
    poisoned, _ = run(backbone, [40, 110])
    assert np.array_equal(poisoned, whole)


def test_a_poisoned_token_leaves_earlier_ones_alone():
    backbone = backbone_of(SMALL, random_tensors(SMALL))
    x = backbone.embed(list(range(70)))
    clean = backbone.attend(0, x, 0)
    x[69] = np.nan
    assert np.array_equal(backbone.attend(0, x, 0)[:69], clean[:69])


def test_equality_sees_one_bit_of_one_weight():
    """The comparison can fail: flip the lowest bit of one weight."""
    tensors = random_tensors(SMALL)
    before, _ = run(backbone_of(SMALL, tensors), [5])
    tensors["model.layers.0.self_attn.o_proj.weight"][3, 3] ^= 1
    after, _ = run(backbone_of(SMALL, tensors), [5])
    assert not np.array_equal(before, after)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="x86-64 Linux only")
@pytest.mark.parametrize("cpu", ["x86-64", "haswell"])
def test_other_instruction_sets(cpu, tmp_path):
    """The same bits from code compiled without FMA and AVX, and for another CPU."""
    code = (
        "import hashlib; from tests.cpu_dense.test_same_bits import SMALL, run;"
        "from tests.cpu_dense.models import backbone_of, random_tensors;"
        "r = [run(backbone_of(SMALL, random_tensors(SMALL), weights=w), [9, 1])"
        " for w in ('bf16', 'int8')];"
        "print([hashlib.sha256(l.tobytes() + c.tobytes()).hexdigest() for l, c in r])"
    )
    root = Path(__file__).parents[2]
    printed = []
    for target in ({}, {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}):
        env = os.environ | target | {"PYTHONPATH": str(root)}  # noqa: TID251  a child's
        out = subprocess.run(
            [sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True
        )
        assert out.returncode == 0, out.stderr
        printed.append(out.stdout)
    assert printed[0] == printed[1]
