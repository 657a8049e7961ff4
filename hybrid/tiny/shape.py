"""How large a tiny model is, and the settings files that say so in the published form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BASE_CONTEXT = 256  # positions before YaRN: small, so that short prompts feel the interpolation
YARN_FACTOR = 64
MERGE = 2  # the vision tower merges 2 x 2 patches


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyShape:
    """Dimensions under config.json's names. The defaults make about 1 MB and run in no time.

    `vocab_size` counts the 256 special slots; it follows the tokenizer if one is copied in.
    """

    vocab_size: int = 1024
    hidden_size: int = 64
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    q_lora_rank: int = 48
    kv_lora_rank: int = 32
    qk_nope_head_dim: int = 16
    qk_rope_head_dim: int = 16
    v_head_dim: int = 16
    intermediate_size: int = 128
    moe_intermediate_size: int = 32
    n_routed_experts: int = 16
    num_experts_per_tok: int = 4
    n_shared_experts: int = 1
    first_k_dense_replace: int = 1
    routed_scaling_factor: float = 2.827
    rms_norm_eps: float = 1e-5
    rope_theta: float = 50000.0
    patch_size: int = 14
    init_pos_emb_height: int = 16
    init_pos_emb_width: int = 16
    init_pos_emb_time: int = 4
    vt_hidden_size: int = 48
    vt_intermediate_size: int = 96
    vt_num_hidden_layers: int = 2
    vt_num_attention_heads: int = 4


# K2.5's layers and experts, tiny in every other way: 90 MB in 208,250 tensors.
K25_LAYOUT = TinyShape(
    hidden_size=32,
    num_hidden_layers=61,
    num_attention_heads=2,
    q_lora_rank=32,
    kv_lora_rank=32,
    intermediate_size=64,
    n_routed_experts=384,
    num_experts_per_tok=8,
)


MEDIA_LIMITS: Mapping[str, object] = {
    "in_patch_limit": 16384,
    "patch_size": 14,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "merge_kernel_size": 2,
    "fixed_output_tokens": None,
    "patch_limit_on_one_side": 512,
    "in_patch_limit_each_frame": 4096,
    "in_patch_limit_video": None,
    "sample_fps": 2.0,
    "max_num_frames_each_video": None,
    "temporal_merge_kernel_size": 4,
    "timestamp_mode": "hh:mm:ss.fff",
    "config_type": "media_proc.processors.moonvit.MoonViTMediaProcessorConfig",
}
"""media_proc_cfg of preprocessor_config.json as published (spec §6)."""


def config_json(
    shape: TinyShape, ids: Mapping[str, int], *, prefix: bool, vision: bool
) -> dict[str, Any]:
    """Build config.json: nested as K2.5 publishes it, flat as K2-Thinking (`prefix` False).

    `ids` gives the id of each special token by name.
    """
    ends = {f"{key}_token_id": ids[f"[{key.upper()}]"] for key in ("bos", "eos", "pad")}
    text = _text(shape) | ends
    if not prefix:
        return text | {"quantization_config": _quantization()}
    config: dict[str, Any] = {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "model_type": "kimi_k25",
        "dtype": "bfloat16",
        "ignore_index": -100,
        **ends,
        "text_config": text | {"quantization_config": _quantization()},
        "tie_word_embeddings": False,
    }
    if vision:
        config |= {
            "media_placeholder_token_id": ids["<|media_pad|>"],
            "use_unified_vision_chunk": True,
            "video_placeholder": "<|kimi_k25_video_placeholder|>",
            "vision_config": _vision(shape),
        }
    return config


def _text(shape: TinyShape) -> dict[str, Any]:
    sizes = {
        name: getattr(shape, name)
        for name in TinyShape.__dataclass_fields__
        if not name.startswith(("vt_", "init_pos", "patch"))
    }
    return sizes | {
        "architectures": ["DeepseekV3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "max_length": 20,  # a serialised default, to be ignored, as are the next two
        "max_position_embeddings": YARN_FACTOR * BASE_CONTEXT,
        "model_type": "kimi_k2",
        "moe_layer_freq": 1,
        "n_group": 1,
        "norm_topk_prob": True,
        "num_key_value_heads": shape.num_attention_heads,
        "num_nextn_predict_layers": 0,
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": float(YARN_FACTOR),
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": BASE_CONTEXT,
            "type": "yarn",
        },
        "scoring_func": "sigmoid",
        "temperature": 1.0,
        "tie_word_embeddings": False,
        "top_k": 50,
        "topk_group": 1,
        "topk_method": "noaux_tc",
    }


def _quantization() -> dict[str, Any]:
    weights: dict[str, Any] = {
        "actorder": None,
        "block_structure": None,
        "dynamic": False,
        "group_size": 32,
        "num_bits": 4,
        "observer": "minmax",
        "observer_kwargs": {},
        "strategy": "group",
        "symmetric": True,
        "type": "int",
    }
    group = {
        "input_activations": None,
        "output_activations": None,
        "targets": ["Linear"],
        "weights": weights,
    }
    return {
        "config_groups": {"group_0": group},
        "format": "pack-quantized",
        "ignore": [
            "lm_head",
            "re:.*self_attn.*",
            "re:.*shared_experts.*",
            "re:.*mlp\\.(gate|up|gate_up|down)_proj.*",
        ],
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }


def _vision(shape: TinyShape) -> dict[str, Any]:
    sizes = {
        name: getattr(shape, name)
        for name in TinyShape.__dataclass_fields__
        if name.startswith(("vt_", "init_pos", "patch"))
    }
    return sizes | {
        "merge_kernel_size": [MERGE, MERGE],
        "merge_type": "sd2_tpool",
        "mm_hidden_size": shape.vt_hidden_size,
        "mm_projector_type": "patchmerger",
        "pos_emb_type": "divided_fixed",
        "projector_hidden_act": "gelu",
        "projector_ln_eps": 1e-5,
        "text_hidden_size": shape.hidden_size,
        "video_attn_type": "spatial_temporal",
    }
