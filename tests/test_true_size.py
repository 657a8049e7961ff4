"""One dense layer and one layer with experts at every true dimension of K2.5, against transformers.

Only the numbers of layers, experts and words are small: what a vector register, a panel, a scratch
buffer or a softmax over 64 heads can get wrong at 7168 and 2048 shows here and nowhere else.
"""

import numpy as np
import pytest

import hybrid
from hybrid.tiny import TinyShape, write_tiny
from hybrid.vision.prompt import Prompt
from tests.reference.transformers_model import Oracle, dense_copy

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

BF16 = 2.0**-9
SLICE = TinyShape(
    hidden_size=7168,
    num_hidden_layers=2,
    num_attention_heads=64,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    intermediate_size=18432,
    moe_intermediate_size=2048,
    n_routed_experts=12,
    num_experts_per_tok=8,
)


@pytest.fixture(scope="module")
def slice_dir(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("slice") / "k25-slice", SLICE, prefix=False)


def test_logits_agree_to_bf16_rounding(slice_dir, tmp_path):
    ids = np.random.default_rng(0).integers(0, 768, 20).tolist()
    logits = {}
    for activation in ("bf16", "int8"):
        engine = hybrid.load(slice_dir, device="cpu", activation=activation, kv_tokens=64)
        logits[activation] = engine.logits(ids)
        steps = [engine._timeline.prefill(Prompt(ids[:1]))[0]]
        steps += [engine._timeline.step(token) for token in ids[1:]]
        assert np.array_equal(np.stack(steps), logits[activation]), "decode differs from prefill"
        engine.close()
    judge = Oracle(dense_copy(slice_dir, tmp_path / "dense"))
    exact = judge.logits(ids)
    bound = judge.sensitivity(ids, BF16, draws=3)
    assert exact.std() > 1
    assert np.abs(logits["bf16"] - exact).max() <= bound
    assert np.abs(logits["int8"] - exact).max() > np.abs(logits["bf16"] - exact).max()
