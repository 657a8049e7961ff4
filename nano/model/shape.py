"""How large kimi-nano is. All matrix dimensions are multiples of 32, as INT4 groups are.

    parameters   embedding and head 1.7 M | attention 1.6 M | dense and shared 0.7 M
                 routed experts 6.3 M in INT4 | tower and projector 1.0 M       about 14 MB in all

YaRN stays as published (factor 64), over a base of 256 positions: the model is trained with the
stretched frequencies and with the softmax scale that goes with them, so it notices wrong ones.
"""

from collections.abc import Mapping
from typing import Any

from hybrid.chat.vocabulary import SPECIAL_SLOTS, Vocabulary
from hybrid.config import ModelConfig
from hybrid.tiny.shape import TinyShape, config_json

NANO = TinyShape(
    vocab_size=3328,
    hidden_size=256,
    num_hidden_layers=5,
    num_attention_heads=8,
    q_lora_rank=192,
    kv_lora_rank=128,
    qk_nope_head_dim=32,
    qk_rope_head_dim=32,
    v_head_dim=32,
    intermediate_size=640,
    moe_intermediate_size=64,
    n_routed_experts=32,
    num_experts_per_tok=4,
    init_pos_emb_height=16,
    init_pos_emb_width=16,
    vt_hidden_size=128,
    vt_intermediate_size=384,
    vt_num_hidden_layers=3,
    vt_num_attention_heads=4,
)


def raw_config(shape: TinyShape, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return config.json in the published form."""
    base = len(vocabulary.base)
    ids: Mapping[str, int] = {name: base + slot for slot, name in enumerate(vocabulary.special)}
    sized = {name: getattr(shape, name) for name in TinyShape.__dataclass_fields__}
    fitted = TinyShape(**sized | {"vocab_size": base + SPECIAL_SLOTS})
    return config_json(fitted, ids, prefix=True, vision=True)


def model_config(shape: TinyShape, vocabulary: Vocabulary) -> ModelConfig:
    """Return what the runtime reads of it; ConfigError for a shape that cannot be."""
    return ModelConfig.from_dict(raw_config(shape, vocabulary))
