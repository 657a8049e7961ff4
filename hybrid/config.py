"""What the model is: `config.json` read once, checked, frozen, and passed down.

Two spellings are read: the published one, and the one that transformers saves. K2.5 and K2.6
nest the text model, K2-Thinking is flat:

    K2.5        {architectures, media_placeholder_token_id, text_config: {..., quantization_config},
                 vision_config}
    K2-Thinking {architectures, ..., quantization_config}

Field names are those of the published file. What the runtime does not implement is refused by
name, with the value seen. Stop tokens are not read here: the file's `eos_token_id` is wrong in
some revisions, so they come from the tokenizer (spec §1.1, §7).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid.config_section import Section
from hybrid.errors import CheckpointError, ConfigError
from hybrid.model_files import parse_json_object, read_model_file, require_directory

MAX_CONFIG_BYTES = 1 << 20
MAX_EXPERTS = 1 << 17  # over all layers; K2.5 has 23,040
GROUP = 32

MULTIMODAL = ("KimiK25ForConditionalGeneration", "Kimi_K25ForConditionalGeneration")
TEXT_ONLY = ("DeepseekV3ForCausalLM",)
TEXT_TYPES = ("kimi_k2", "deepseek_v3")


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """YaRN (spec §3.3). Lengths in tokens."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float
    beta_slow: float
    mscale: float
    mscale_all_dim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """The language model (spec §1.2)."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    intermediate_size: int
    moe_intermediate_size: int
    n_routed_experts: int
    num_experts_per_tok: int
    n_shared_experts: int
    first_k_dense_replace: int
    routed_scaling_factor: float
    norm_topk_prob: bool
    rms_norm_eps: float
    latent_norm_eps: float  # of q_a_layernorm and kv_a_layernorm
    max_position_embeddings: int
    rope_theta: float
    rope_scaling: RopeScaling | None

    def is_moe(self, layer: int) -> bool:
        """Tell whether a layer has a router and experts rather than one dense FFN."""
        return layer >= self.first_k_dense_replace

    @property
    def moe_layers(self) -> int:
        """Number of layers with experts."""
        return self.num_hidden_layers - self.first_k_dense_replace


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    """MoonViT-3D and its projector (spec §1.4). Sizes in pixels, patches or features."""

    patch_size: int
    init_pos_emb_height: int
    init_pos_emb_width: int
    init_pos_emb_time: int
    vt_hidden_size: int
    vt_intermediate_size: int
    vt_num_hidden_layers: int
    vt_num_attention_heads: int
    merge_kernel_size: tuple[int, int]
    projector_ln_eps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How the routed experts are packed: compressed-tensors `pack-quantized` (spec §2.4)."""

    num_bits: int
    group_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """All that a checkpoint says about itself."""

    architecture: str
    text: TextConfig
    vision: VisionConfig | None
    quantization: Quantization | None  # None only if no layer has experts
    media_placeholder_token_id: int | None  # None only without vision

    @classmethod
    def from_dir(cls, model_dir: Path | str) -> "ModelConfig":
        """Read `config.json` of a model directory; raises ConfigError in one line."""
        try:
            require_directory(Path(model_dir))
            data = read_model_file(Path(model_dir), "config.json", MAX_CONFIG_BYTES)
        except CheckpointError as error:
            raise ConfigError(str(error)) from None
        return cls.from_dict(parse_json_object(data, "config.json", ConfigError))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Check and convert the parsed file; raises ConfigError in one line."""
        top = Section(values)
        architecture = _architecture(top)
        nested = architecture in MULTIMODAL
        text = top.section("text_config") if nested else top
        text_config = _text(top, text)
        has_vision = nested and top.has("vision_config")
        return cls(
            architecture=architecture,
            text=text_config,
            vision=_vision(top, text_config.hidden_size) if has_vision else None,
            quantization=_quantization(top, text, text_config),
            media_placeholder_token_id=_media_id(top, text_config) if has_vision else None,
        )


def _architecture(top: Section) -> str:
    names = top.values.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or names[0] not in MULTIMODAL + TEXT_ONLY:
        raise top.refuse(
            "architectures", f"kimi-local supports only {', '.join((MULTIMODAL[0], *TEXT_ONLY))}"
        )
    name: str = names[0]
    top.only("model_type", *(("kimi_k25",) if name in MULTIMODAL else TEXT_TYPES))
    return MULTIMODAL[0] if name in MULTIMODAL else name


def _text(top: Section, text: Section) -> TextConfig:
    _refuse_unsupported_text(top, text)
    config = TextConfig(
        vocab_size=text.integer("vocab_size", 257, 1 << 20),
        hidden_size=_multiple(text, "hidden_size", GROUP, 1 << 16),
        num_hidden_layers=text.integer("num_hidden_layers", 1, 1024),
        num_attention_heads=text.integer("num_attention_heads", 1, 1024),
        q_lora_rank=text.integer("q_lora_rank", 1, 1 << 16),
        kv_lora_rank=text.integer("kv_lora_rank", 1, 1 << 14),
        qk_nope_head_dim=text.integer("qk_nope_head_dim", 1, 2048),
        qk_rope_head_dim=_multiple(text, "qk_rope_head_dim", 2, 2048),
        v_head_dim=text.integer("v_head_dim", 1, 2048),
        intermediate_size=text.integer("intermediate_size", 1, 1 << 18),
        moe_intermediate_size=_multiple(text, "moe_intermediate_size", GROUP, 1 << 16),
        n_routed_experts=text.integer("n_routed_experts", 1, 4096),
        num_experts_per_tok=text.integer("num_experts_per_tok", 1, 64),
        n_shared_experts=text.integer("n_shared_experts", 1, 16),
        first_k_dense_replace=text.integer("first_k_dense_replace", 0, 1024),
        routed_scaling_factor=text.real("routed_scaling_factor", 1e-3, 1e3),
        norm_topk_prob=text.flag("norm_topk_prob"),
        rms_norm_eps=text.real("rms_norm_eps", 1e-12, 1e-2),
        latent_norm_eps=text.real("latent_norm_eps", 1e-12, 1e-2, default=1e-6),
        max_position_embeddings=text.integer("max_position_embeddings", 1, 1 << 24),
        rope_theta=_rope_source(text).real("rope_theta", 1.0, 1e12),
        rope_scaling=_rope_scaling(text),
    )
    _relate(text, config)
    return config


def _refuse_unsupported_text(top: Section, text: Section) -> None:
    if text is not top:
        top.only("tie_word_embeddings", False)
        text.only("model_type", *TEXT_TYPES)
    text.only("hidden_act", "silu")
    text.only("attention_bias", False)
    text.only("tie_word_embeddings", False)
    text.only("scoring_func", "sigmoid")
    text.only("topk_method", "noaux_tc")
    text.only("n_group", 1)
    text.only("topk_group", 1)
    text.only("moe_layer_freq", 1)
    text.only("rope_interleave", True)


def _relate(text: Section, config: TextConfig) -> None:
    if config.num_experts_per_tok > config.n_routed_experts:
        raise text.refuse(
            "num_experts_per_tok", f"n_routed_experts is only {config.n_routed_experts}"
        )
    if config.first_k_dense_replace > config.num_hidden_layers:
        raise text.refuse(
            "first_k_dense_replace", f"num_hidden_layers is only {config.num_hidden_layers}"
        )
    if config.moe_layers * config.n_routed_experts > MAX_EXPERTS:
        raise text.refuse(
            "n_routed_experts", f"over {config.moe_layers} layers more than {MAX_EXPERTS} experts"
        )


def _multiple(section: Section, key: str, step: int, high: int) -> int:
    value = section.integer(key, step, high)
    if value % step:
        raise section.refuse(key, f"expected a multiple of {step}")
    return value


def _rope_source(text: Section) -> Section:
    return text.section("rope_parameters") if text.has("rope_parameters") else text


def _rope_scaling(text: Section) -> RopeScaling | None:
    if text.has("rope_parameters") and text.has("rope_scaling"):
        raise text.refuse("rope_scaling", "rope_parameters is present too; keep one of them")
    key = text.first("rope_parameters", "rope_scaling")
    if not text.has(key):
        return None
    rope = text.section(key)
    kind = rope.first("rope_type", "type")
    rope.only("rope_type", "yarn", "default")
    rope.only("type", "yarn", "default")
    rope.absent("attention_factor")
    rope.only("truncate", True)
    if not rope.has(kind) or rope.values[kind] == "default":
        return None
    return RopeScaling(
        factor=rope.real("factor", 1.0, 1e4),
        original_max_position_embeddings=rope.integer(
            "original_max_position_embeddings", 1, 1 << 24
        ),
        beta_fast=rope.real("beta_fast", 1e-3, 1e4),
        beta_slow=rope.real("beta_slow", 1e-3, 1e4),
        mscale=rope.real("mscale", 1e-3, 1e2),
        mscale_all_dim=rope.real("mscale_all_dim", 1e-3, 1e2),
    )


def _vision(top: Section, hidden_size: int) -> VisionConfig:
    vision = top.section("vision_config")
    vision.only("merge_type", "sd2_tpool")
    vision.only("pos_emb_type", "divided_fixed")
    vision.only("video_attn_type", "spatial_temporal")
    vision.only("mm_projector_type", "patchmerger")
    vision.only("projector_hidden_act", "gelu")
    vision.only("hidden_act", "gelu_pytorch_tanh")
    vision.only("merge_kernel_size", [2, 2])
    _require_same(vision, "text_hidden_size", hidden_size, "text hidden_size")
    pos_emb = {
        side: vision.integer(vision.first(f"init_pos_emb_{side}", f"pos_emb_{side}"), 1, 1024)
        for side in ("height", "width", "time")
    }
    sizes = {
        key: vision.integer(vision.first(f"vt_{key}", key), 1, high)
        for key, high in (
            ("hidden_size", 1 << 14),
            ("intermediate_size", 1 << 16),
            ("num_hidden_layers", 256),
            ("num_attention_heads", 256),
        )
    }
    _require_same(vision, "mm_hidden_size", sizes["hidden_size"], "vision hidden size")
    if sizes["hidden_size"] % (4 * sizes["num_attention_heads"]):
        raise vision.refuse(
            vision.first("vt_hidden_size", "hidden_size"),
            f"expected a multiple of 4 x {sizes['num_attention_heads']} heads (2-D rotary pairs)",
        )
    eps_default = top.real("projection_layer_norm_eps", 1e-12, 1e-2, default=1e-5)
    return VisionConfig(
        patch_size=vision.integer("patch_size", 1, 256),
        init_pos_emb_height=pos_emb["height"],
        init_pos_emb_width=pos_emb["width"],
        init_pos_emb_time=pos_emb["time"],
        vt_hidden_size=sizes["hidden_size"],
        vt_intermediate_size=sizes["intermediate_size"],
        vt_num_hidden_layers=sizes["num_hidden_layers"],
        vt_num_attention_heads=sizes["num_attention_heads"],
        merge_kernel_size=(2, 2),
        projector_ln_eps=vision.real("projector_ln_eps", 1e-12, 1e-2, default=eps_default),
    )


def _require_same(section: Section, key: str, value: int, other: str) -> None:
    if section.has(key) and section.values[key] != value:
        raise section.refuse(key, f"expected the {other}, {value}")


def _media_id(top: Section, text: TextConfig) -> int:
    key = top.first("media_placeholder_token_id", "image_token_id")
    return top.integer(key, 0, text.vocab_size - 1)


def _quantization(top: Section, text: Section, config: TextConfig) -> Quantization | None:
    places = [s for s in (top, text) if s.has("quantization_config")]
    if not places:
        if config.moe_layers:
            raise ConfigError(
                "config.json: quantization_config is missing at the top level and under "
                "text_config; kimi-local needs routed experts in INT4 (compressed-tensors)"
            )
        return None
    if any(
        s.values["quantization_config"] != places[0].values["quantization_config"] for s in places
    ):
        raise top.refuse("quantization_config", "text_config has a different one")
    return _packed_int4(places[0].section("quantization_config"))


def _packed_int4(found: Section) -> Quantization:
    found.exactly("quant_method", "compressed-tensors")
    found.exactly("format", "pack-quantized")
    found.only("quantization_status", "compressed")
    found.absent("kv_cache_scheme", "sparsity_config", "transform_config")
    groups = found.section("config_groups")
    if len(groups.values) != 1:
        raise found.refuse("config_groups", "expected exactly one group")
    group = groups.section(next(iter(groups.values)))
    group.only("format", "pack-quantized")
    group.only("targets", ["Linear"])
    group.absent("input_activations", "output_activations")
    weights = group.section("weights")
    weights.exactly("num_bits", 4)
    weights.exactly("group_size", GROUP)
    weights.exactly("type", "int")
    weights.exactly("strategy", "group")
    weights.exactly("symmetric", True)
    weights.only("dynamic", False)
    weights.absent("actorder", "block_structure")
    return Quantization(num_bits=4, group_size=GROUP)
