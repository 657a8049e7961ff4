"""A vocabulary and a model small enough to train in a test."""

import pytest

from hybrid.chat.vocabulary import Vocabulary
from hybrid.tiny import TinyShape
from hybrid.tiny.bpe import build_vocabulary, special_names
from nano.data.render import Renderer
from nano.training.crew import Crew

SMALL = TinyShape(
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=2,
    q_lora_rank=32,
    kv_lora_rank=32,
    qk_nope_head_dim=16,
    qk_rope_head_dim=16,
    v_head_dim=16,
    intermediate_size=64,
    moe_intermediate_size=32,
    n_routed_experts=8,
    num_experts_per_tok=2,
    vt_hidden_size=32,
    vt_intermediate_size=64,
    vt_num_hidden_layers=1,
    vt_num_attention_heads=2,
)


@pytest.fixture(scope="session")
def small_shape() -> TinyShape:
    return SMALL


@pytest.fixture(scope="session")
def nano_vocabulary() -> Vocabulary:
    base = build_vocabulary(512)
    return Vocabulary(base, special_names(len(base)))


@pytest.fixture(scope="session")
def renderer(nano_vocabulary) -> Renderer:
    return Renderer.of(nano_vocabulary)


@pytest.fixture
def crew():
    crew = Crew(2)
    yield crew
    crew.close()
