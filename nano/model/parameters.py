"""All weights of the model by their published names, but for the routed experts, which are stacked.

    language_model's names, e.g. model.layers.1.self_attn.q_a_proj.weight   [out, in]
    model.layers.1.mlp.experts.gate_up    [experts, 2 * intermediate, hidden]   gate above up
    model.layers.1.mlp.experts.down       [experts, hidden, intermediate]

Residual branches begin small (1 / sqrt(2 L)), so that no layer drowns another. Four things begin
where training would bring them after long: copying is then learnt four times as fast.

    embedding   rows begin as neighbours (nano/model/embedding.py)
    pos_emb     begins as slow waves: noise would be averaged away where it is resampled
    o_proj      partly the transpose of a head's way in, so that a head hands on what it sees
                (after "mimetic initialization", Trockman and Kolter, arXiv 2305.09828)
    lm_head     a faint copy of the embedding: what is handed on is said
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hybrid.chat.vocabulary import Vocabulary
from hybrid.checkpoint.expected import expected_tensors
from hybrid.config import ModelConfig
from nano.model.embedding import embedding

Parameters = dict[str, Tensor]

BIAS = "mlp.gate.e_score_correction_bias"  # moved by the loads, never by a gradient
_TABLE = "pos_emb.weight"
_OUTPUTS = ("o_proj.weight", "down_proj.weight", "wo.weight", "fc1.weight")
_ROUTER, _ROUTER_STD = "mlp.gate.weight", 0.06
_WAVES, _WAVES_STD = 3, 0.25  # of the position table, along each side
_HEAD_SCALE = 0.1  # of the embedding in the head


def initial(config: ModelConfig, vocabulary: Vocabulary, seed: int) -> Parameters:
    """Draw all weights in float32, the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    made = {
        want.name: _drawn(want.name, want.shape, config, random)
        for want in expected_tensors(config)
        if ".mlp.experts." not in want.name
    }
    for name, shape in expert_shapes(config):
        made[name] = _drawn(name, shape, config, random)
    tokens = embedding(vocabulary, config.text.hidden_size, random)
    made["model.embed_tokens.weight"] = tokens
    made["lm_head.weight"] = _HEAD_SCALE * tokens
    for layer in range(config.text.num_hidden_layers):
        _hand_on(made, f"model.layers.{layer}.self_attn.", config)
    return made


def expert_shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Yield name and shape of every stack of routed weights."""
    text = config.text
    count, hidden, inner = text.n_routed_experts, text.hidden_size, text.moe_intermediate_size
    for layer in range(text.first_k_dense_replace, text.num_hidden_layers):
        prefix = f"model.layers.{layer}.mlp.experts."
        yield f"{prefix}gate_up", (count, 2 * inner, hidden)
        yield f"{prefix}down", (count, hidden, inner)


def is_expert(name: str) -> bool:
    """Tell whether a tensor is a stack of routed weights: INT4 in the checkpoint."""
    return ".mlp.experts." in name


def is_trained(name: str) -> bool:
    """Tell whether gradients move a tensor."""
    return not name.endswith(BIAS)


def _drawn(
    name: str, shape: tuple[int, ...], config: ModelConfig, random: torch.Generator
) -> Tensor:
    if name.endswith((".bias", BIAS)):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    noise = torch.randn(shape, generator=random)
    if name.endswith(_TABLE):
        return _waves(shape, random)
    if name.endswith(_ROUTER):
        return noise * _ROUTER_STD
    fan_in = math.prod(shape[1:]) if len(shape) == 4 else shape[-1]
    return noise * (_gain(name, config) / math.sqrt(fan_in))


def _waves(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """Slow waves along rows and columns of [height, width, D], each in a direction of its own."""
    made = torch.zeros(shape)
    for side in (0, 1):
        at = (torch.arange(shape[side]) + 0.5) / shape[side]
        for count in range(1, _WAVES + 1):
            wave = torch.cos(math.pi * count * at)
            direction = torch.randn(shape[-1], generator=random)
            made += (wave[:, None] if side else wave[:, None, None]) * direction
    return made * (_WAVES_STD / made.std())


def _hand_on(made: Parameters, prefix: str, config: ModelConfig) -> None:
    """Add to o_proj the transpose of hidden -> latent -> value of each head."""
    text = config.text
    latent = made[f"{prefix}kv_a_proj_with_mqa.weight"][: text.kv_lora_rank]  # [rank, hidden]
    heads = made[f"{prefix}kv_b_proj.weight"].unflatten(0, (text.num_attention_heads, -1))
    values = heads[:, text.qk_nope_head_dim :] @ latent  # [heads, v_head_dim, hidden]
    made[f"{prefix}o_proj.weight"] += values.flatten(0, 1).T / math.sqrt(text.v_head_dim)


def _gain(name: str, config: ModelConfig) -> float:
    text = config.text
    if name.endswith("experts.down"):
        spread = math.sqrt(text.num_experts_per_tok) / text.routed_scaling_factor
        return spread / math.sqrt(2 * text.num_hidden_layers)
    if name.endswith(_OUTPUTS):
        layers = config.vision.vt_num_hidden_layers if "vision" in name and config.vision else 0
        return 1 / math.sqrt(2 * (layers or text.num_hidden_layers))
    return 1.0
