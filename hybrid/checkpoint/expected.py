"""Every tensor that a model of a given configuration needs: name, dtypes, shape, component.

Names are those of the published files (spec §2.2) without the prefix `language_model.`. One list
serves three readers: the check before loading, the sizes that `inspect` prints, and the writer of
tiny checkpoints. It is a generator: the real model has 208,550 entries.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from hybrid.config import ModelConfig, TextConfig, VisionConfig

Component = Literal[
    "embedding",
    "attention",
    "norms",
    "dense",
    "router",
    "shared",
    "routed",
    "head",
    "vision",
    "projector",
]

DENSE = ("BF16", "F32", "F16")
BIAS = ("F32", "BF16")  # e_score_correction_bias
WORDS_PER_INT32 = 8  # nibbles


class ExpectedTensor(NamedTuple):
    """One tensor to be found. The first of `dtypes` is the published one."""

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]
    component: Component
    required: bool = True


def expected_tensors(config: ModelConfig) -> Iterator[ExpectedTensor]:
    """Yield what the model reads, in the order of the published shards (spec §2.1)."""
    text = config.text
    vocab_by_hidden = (text.vocab_size, text.hidden_size)
    for layer in range(text.num_hidden_layers):
        yield from layer_tensors(config, layer)
    yield ExpectedTensor("model.embed_tokens.weight", DENSE, vocab_by_hidden, "embedding")
    yield ExpectedTensor("model.norm.weight", DENSE, (text.hidden_size,), "norms")
    yield ExpectedTensor("lm_head.weight", DENSE, vocab_by_hidden, "head")
    if config.vision:
        yield from _projector(config.vision, text.hidden_size)
        yield from _vision(config.vision)


def layer_tensors(config: ModelConfig, layer: int) -> Iterator[ExpectedTensor]:
    """Yield the tensors of one decoder layer."""
    text = config.text
    prefix = f"model.layers.{layer}."
    yield from _attention(text, prefix)
    if not text.is_moe(layer):
        yield from _ffn(f"{prefix}mlp.", text.hidden_size, text.intermediate_size, "dense")
        return
    gate = f"{prefix}mlp.gate."
    experts = text.n_routed_experts
    yield ExpectedTensor(f"{gate}weight", DENSE, (experts, text.hidden_size), "router")
    yield ExpectedTensor(f"{gate}e_score_correction_bias", BIAS, (experts,), "router")
    shared = text.n_shared_experts * text.moe_intermediate_size
    yield from _ffn(f"{prefix}mlp.shared_experts.", text.hidden_size, shared, "shared")
    group = config.quantization.group_size if config.quantization else 0
    for expert in range(experts):
        yield from _expert(text, f"{prefix}mlp.experts.{expert}.", group)


def _attention(text: TextConfig, prefix: str) -> Iterator[ExpectedTensor]:
    hidden, heads = text.hidden_size, text.num_attention_heads
    attn = f"{prefix}self_attn."
    for name, shape in (
        ("q_a_proj", (text.q_lora_rank, hidden)),
        ("q_b_proj", (heads * (text.qk_nope_head_dim + text.qk_rope_head_dim), text.q_lora_rank)),
        ("kv_a_proj_with_mqa", (text.kv_lora_rank + text.qk_rope_head_dim, hidden)),
        ("kv_b_proj", (heads * (text.qk_nope_head_dim + text.v_head_dim), text.kv_lora_rank)),
        ("o_proj", (hidden, heads * text.v_head_dim)),
    ):
        yield ExpectedTensor(f"{attn}{name}.weight", DENSE, shape, "attention")
    for name, size in (
        (f"{prefix}input_layernorm", hidden),
        (f"{attn}q_a_layernorm", text.q_lora_rank),
        (f"{attn}kv_a_layernorm", text.kv_lora_rank),
        (f"{prefix}post_attention_layernorm", hidden),
    ):
        yield ExpectedTensor(f"{name}.weight", DENSE, (size,), "norms")


def _ffn(
    prefix: str, hidden: int, intermediate: int, component: Component
) -> Iterator[ExpectedTensor]:
    for name, shape in _projections(hidden, intermediate):
        yield ExpectedTensor(f"{prefix}{name}.weight", DENSE, shape, component)


def _expert(text: TextConfig, prefix: str, group: int) -> Iterator[ExpectedTensor]:
    for name, (rows, cols) in _projections(text.hidden_size, text.moe_intermediate_size):
        packed = (rows, cols // WORDS_PER_INT32)
        yield ExpectedTensor(f"{prefix}{name}.weight_packed", ("I32",), packed, "routed")
        scale = (rows, cols // group)
        yield ExpectedTensor(f"{prefix}{name}.weight_scale", ("BF16",), scale, "routed")
        yield ExpectedTensor(f"{prefix}{name}.weight_shape", ("I32", "I64"), (2,), "routed", False)


def _projections(hidden: int, intermediate: int) -> tuple[tuple[str, tuple[int, int]], ...]:
    return (
        ("gate_proj", (intermediate, hidden)),
        ("up_proj", (intermediate, hidden)),
        ("down_proj", (hidden, intermediate)),
    )


def _projector(vision: VisionConfig, hidden: int) -> Iterator[ExpectedTensor]:
    size = vision.vt_hidden_size
    rows, cols = vision.merge_kernel_size
    merged = size * rows * cols
    for name, shape in (
        ("pre_norm.weight", (size,)),
        ("pre_norm.bias", (size,)),
        ("proj.0.weight", (merged, merged)),
        ("proj.0.bias", (merged,)),
        ("proj.2.weight", (hidden, merged)),
        ("proj.2.bias", (hidden,)),
    ):
        yield ExpectedTensor(f"mm_projector.{name}", DENSE, shape, "projector")


def _vision(vision: VisionConfig) -> Iterator[ExpectedTensor]:
    size, patch = vision.vt_hidden_size, vision.patch_size
    positions = (vision.init_pos_emb_height, vision.init_pos_emb_width, size)
    tensors: list[tuple[str, tuple[int, ...]]] = [
        ("patch_embed.proj.weight", (size, 3, patch, patch)),
        ("patch_embed.proj.bias", (size,)),
        ("patch_embed.pos_emb.weight", positions),
    ]
    for block in range(vision.vt_num_hidden_layers):
        tensors += _vision_block(f"encoder.blocks.{block}.", size, vision.vt_intermediate_size)
    tensors += _affine("encoder.final_layernorm", (size,))
    for name, shape in tensors:
        yield ExpectedTensor(f"vision_tower.{name}", DENSE, shape, "vision")


def _vision_block(
    prefix: str, size: int, intermediate: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, shape in (
        ("norm0", (size,)),
        ("norm1", (size,)),
        ("wqkv", (3 * size, size)),
        ("wo", (size, size)),
        ("mlp.fc0", (intermediate, size)),
        ("mlp.fc1", (size, intermediate)),
    ):
        yield from _affine(prefix + name, shape)


def _affine(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]
