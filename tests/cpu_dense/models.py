"""Small random models whose softmax and routing are not flat, without files."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hybrid.checkpoint.expected import layer_tensors
from hybrid.config import ModelConfig, Quantization, RopeScaling, TextConfig
from hybrid.cpu_dense import CpuBackbone
from tests.reference.backbone import Reference

YARN = RopeScaling(
    factor=64.0,
    original_max_position_embeddings=256,
    beta_fast=32.0,
    beta_slow=1.0,
    mscale=1.0,
    mscale_all_dim=1.0,
)
SMALL = TextConfig(
    vocab_size=300,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=3,
    q_lora_rank=48,
    kv_lora_rank=32,
    qk_nope_head_dim=16,
    qk_rope_head_dim=8,
    v_head_dim=24,
    intermediate_size=96,
    moe_intermediate_size=32,
    n_routed_experts=50,
    num_experts_per_tok=8,
    n_shared_experts=1,
    first_k_dense_replace=1,
    routed_scaling_factor=2.827,
    norm_topk_prob=True,
    rms_norm_eps=1e-5,
    latent_norm_eps=1e-6,
    max_position_embeddings=1 << 18,
    rope_theta=50000.0,
    rope_scaling=YARN,
)
SHAPES: Mapping[str, TextConfig] = {
    "small": SMALL,
    "one head": replace(SMALL, num_attention_heads=1, kv_lora_rank=48, qk_rope_head_dim=64),
    "eight heads": replace(SMALL, num_attention_heads=8, hidden_size=32, n_shared_experts=2),
    "odd": replace(
        SMALL,
        kv_lora_rank=37,
        q_lora_rank=35,
        qk_nope_head_dim=7,
        qk_rope_head_dim=2,
        v_head_dim=5,
        intermediate_size=33,
        n_routed_experts=9,
        norm_topk_prob=False,
    ),
    "plain rope": replace(SMALL, rope_scaling=None, n_routed_experts=8, num_experts_per_tok=1),
}


class Tensors(dict[str, NDArray]):
    """A checkpoint in memory: bf16 as uint16 bits, the router's bias as float32."""

    def tensor(self, name: str) -> NDArray:
        return self[name]


def shapes_of(text: TextConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors but routed experts."""
    config = ModelConfig(
        architecture="DeepseekV3ForCausalLM",
        text=text,
        vision=None,
        quantization=Quantization(num_bits=4, group_size=32),
        media_placeholder_token_id=None,
    )
    table = (text.vocab_size, text.hidden_size)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": table,
        "lm_head.weight": table,
        "model.norm.weight": (text.hidden_size,),
    }
    for layer in range(text.num_hidden_layers):
        for wanted in layer_tensors(config, layer):
            if ".experts." not in wanted.name:
                shapes[wanted.name] = wanted.shape
    return shapes


def random_tensors(text: TextConfig, seed: int = 0) -> Tensors:
    """Weights that keep activations near 1, with sharper queries and routers than a fresh model."""
    rng = np.random.default_rng(seed)
    tensors = Tensors()
    for name, shape in shapes_of(text).items():
        if name.endswith("norm.weight"):
            values = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("bias"):
            tensors[name] = rng.uniform(-0.3, 0.3, shape).astype(np.float32)
            continue
        else:
            gain = 2.5 if "q_b_proj" in name or ".gate.weight" in name else 1.0
            values = rng.standard_normal(shape) * gain / np.sqrt(shape[-1])
        tensors[name] = truncated_bf16(values)
    return tensors


def truncated_bf16(values: NDArray) -> NDArray[np.uint16]:
    """Some bf16 bits near the values."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def widened(values: NDArray) -> NDArray[np.float64]:
    """Float64 of bf16 bits or of floats."""
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)


def reference_of(
    text: TextConfig, tensors: Tensors, kind: type[Reference] = Reference
) -> Reference:
    return kind(text, {name: widened(values) for name, values in tensors.items()})


def backbone_of(
    text: TextConfig, tensors: Tensors, kv_tokens: int = 320, threads: int = 1,
    weights: str = "bf16",
) -> CpuBackbone:  # fmt: skip
    """A backbone whose cache is zeros, not whatever memory held: tests may skip positions."""
    backbone = CpuBackbone(
        text, tensors, total=0, kv_tokens=kv_tokens, threads=threads, weights=weights
    )
    backbone.cache.fill(0)
    return backbone


def stream(text: TextConfig, tokens: int, seed: int = 1, scale: float = 1.0) -> NDArray[np.float32]:
    """A residual stream; never near zero, since a fault times zero is invisible."""
    rng = np.random.default_rng(seed)
    shape = (tokens, text.hidden_size)
    return (rng.uniform(0.5, 2.0, shape) * rng.choice([-1, 1], shape) * scale).astype(np.float32)


def cached_rows(backbone: CpuBackbone, layer: int, end: int) -> NDArray[np.float64]:
    """Rows that a backbone really stored: [end, kv_lora_rank + qk_rope_head_dim]."""
    width = backbone.text.kv_lora_rank + backbone.text.qk_rope_head_dim
    return widened(backbone.cache[layer, :end, :width])
