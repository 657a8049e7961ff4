"""config.json: what is read, in both spellings, and what is refused by name."""

import copy
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from hybrid.config import (
    ModelConfig,
    Quantization,
    RopeScaling,
    TextConfig,
    VisionConfig,
)
from hybrid.errors import ConfigError

PUBLISHED = Path(__file__).parent / "data" / "kimi_k25_config.json"

K25 = ModelConfig(
    architecture="KimiK25ForConditionalGeneration",
    text=TextConfig(
        vocab_size=163840,
        hidden_size=7168,
        num_hidden_layers=61,
        num_attention_heads=64,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        intermediate_size=18432,
        moe_intermediate_size=2048,
        n_routed_experts=384,
        num_experts_per_tok=8,
        n_shared_experts=1,
        first_k_dense_replace=1,
        routed_scaling_factor=2.827,
        norm_topk_prob=True,
        rms_norm_eps=1e-5,
        latent_norm_eps=1e-6,
        max_position_embeddings=262144,
        rope_theta=50000.0,
        rope_scaling=RopeScaling(
            factor=64.0,
            original_max_position_embeddings=4096,
            beta_fast=32.0,
            beta_slow=1.0,
            mscale=1.0,
            mscale_all_dim=1.0,
        ),
    ),
    vision=VisionConfig(
        patch_size=14,
        init_pos_emb_height=64,
        init_pos_emb_width=64,
        init_pos_emb_time=4,
        vt_hidden_size=1152,
        vt_intermediate_size=4304,
        vt_num_hidden_layers=27,
        vt_num_attention_heads=16,
        merge_kernel_size=(2, 2),
        projector_ln_eps=1e-5,
    ),
    quantization=Quantization(num_bits=4, group_size=32),
    media_placeholder_token_id=163605,
)


def published():
    return json.loads(PUBLISHED.read_text())


def flat():
    """K2-Thinking's form: the text model at the top, and the quantization beside it."""
    return published()["text_config"] | {"architectures": ["DeepseekV3ForCausalLM"]}


def put(values, path, value):
    """Set a dotted path; `...` deletes the key."""
    *parents, key = path.split(".")
    for parent in parents:
        values = values[parent]
    if value is ...:
        values.pop(key, None)
    else:
        values[key] = value


def refusal(values):
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict(values)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isascii()
    assert len(message) < 300
    return message


def test_published_file(tmp_path):
    (tmp_path / "config.json").write_bytes(PUBLISHED.read_bytes())
    assert ModelConfig.from_dir(tmp_path) == K25


@pytest.mark.oracle
def test_file_saved_by_transformers_means_the_same(tmp_path):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "config.json").write_bytes(PUBLISHED.read_bytes())
    transformers.AutoConfig.from_pretrained(tmp_path).save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["text_config"]["model_type"] == "deepseek_v3"
    assert "rope_scaling" not in saved["text_config"]
    assert ModelConfig.from_dict(saved) == K25


def test_transformers_spelling_alone():
    """Without the published names that transformers carries along when it converts."""
    values = published()
    vision = values["vision_config"]
    for name in ("height", "width", "time"):
        vision[f"pos_emb_{name}"] = vision.pop(f"init_pos_emb_{name}")
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        vision[name] = vision.pop(f"vt_{name}")
    del vision["projector_ln_eps"]
    values["projection_layer_norm_eps"] = 1e-5
    values["image_token_id"] = values.pop("media_placeholder_token_id")
    values["architectures"] = ["Kimi_K25ForConditionalGeneration"]
    text = values["text_config"]
    text["model_type"] = "deepseek_v3"
    rope = text.pop("rope_scaling")
    text["rope_parameters"] = rope | {"rope_type": "yarn", "rope_theta": text.pop("rope_theta")}
    assert ModelConfig.from_dict(values) == K25


def test_flat_form_of_k2_thinking():
    config = ModelConfig.from_dict(flat())
    expected = replace(
        K25,
        architecture="DeepseekV3ForCausalLM",
        vision=None,
        media_placeholder_token_id=None,
    )
    assert config == expected


def test_quantization_is_found_in_both_places():
    values = published()
    values["quantization_config"] = copy.deepcopy(values["text_config"]["quantization_config"])
    assert ModelConfig.from_dict(values) == K25
    del values["text_config"]["quantization_config"]
    assert ModelConfig.from_dict(values) == K25
    values["text_config"]["quantization_config"] = {"quant_method": "fp8"}
    assert "a different one" in refusal(values)


def test_no_quantization_needs_no_experts():
    values = flat()
    del values["quantization_config"]
    assert "quantization_config is missing" in refusal(values)
    values["first_k_dense_replace"] = values["num_hidden_layers"]
    assert ModelConfig.from_dict(values).quantization is None


def test_text_only_multimodal_form():
    values = published()
    del values["vision_config"], values["media_placeholder_token_id"]
    assert ModelConfig.from_dict(values).vision is None


def test_default_rope_is_no_scaling():
    values = published()
    values["text_config"]["rope_scaling"] = None
    assert ModelConfig.from_dict(values).text.rope_scaling is None
    values["text_config"]["rope_parameters"] = {"rope_type": "default", "rope_theta": 50000.0}
    assert ModelConfig.from_dict(values).text.rope_scaling is None


def test_latent_norm_eps_may_be_set():
    values = published()
    values["text_config"]["latent_norm_eps"] = 1e-5
    assert ModelConfig.from_dict(values).text.latent_norm_eps == 1e-5


def test_moe_layers():
    assert [K25.text.is_moe(layer) for layer in (0, 1, 60)] == [False, True, True]
    assert K25.text.moe_layers == 60


def test_eos_is_never_read():
    values = published()
    for section in (values, values["text_config"]):
        section["eos_token_id"] = "nonsense"
    assert ModelConfig.from_dict(values) == K25


OTHER = {  # a valid value that differs from the published one, where doubling is not
    "rms_norm_eps": 2e-6,
    "norm_topk_prob": False,
    "num_experts_per_tok": 9,
    "num_hidden_layers": 60,
    "n_routed_experts": 16,
    "rope_scaling": {
        "type": "yarn",
        "factor": 32.0,
        "original_max_position_embeddings": 8192,
        "beta_fast": 1.0,
        "beta_slow": 2.0,
        "mscale": 0.5,
        "mscale_all_dim": 0.7,
    },
}


@pytest.mark.parametrize("name", [f.name for f in fields(TextConfig)])
def test_each_field_comes_from_its_own_key(name):
    """A field wired to a neighbour's key changes two fields here, or none."""
    values = published()
    text = values["text_config"]
    text["latent_norm_eps"] = 1e-6
    text[name] = OTHER[name] if name in OTHER else text[name] * 2
    del values["vision_config"]  # it repeats hidden_size
    got = ModelConfig.from_dict(values).text
    changed = [f.name for f in fields(got) if getattr(got, f.name) != getattr(K25.text, f.name)]
    assert changed == [name]
    if name == "rope_scaling":
        assert all(getattr(got.rope_scaling, k) == v for k, v in text[name].items() if k != "type")
    else:
        assert getattr(got, name) == text[name]


NEEDED = [f.name for f in fields(TextConfig) if f.name not in ("latent_norm_eps", "rope_scaling")]
ROPE = [f"rope_scaling.{f.name}" for f in fields(RopeScaling)]
QUANTIZATION = [
    "quant_method",
    "format",
    "config_groups",
    "config_groups.group_0.weights",
    *(
        f"config_groups.group_0.weights.{key}"
        for key in ("num_bits", "group_size", "type", "strategy", "symmetric")
    ),
]


@pytest.mark.parametrize("gone", [..., None])
@pytest.mark.parametrize(
    "path",
    [
        "text_config",
        "media_placeholder_token_id",
        *(f"text_config.{name}" for name in NEEDED + ROPE),
        *(f"text_config.quantization_config.{name}" for name in QUANTIZATION),
        *(
            f"vision_config.{f.name}"
            for f in fields(VisionConfig)
            if f.name not in ("merge_kernel_size", "projector_ln_eps")
        ),
    ],
)
def test_a_missing_key_is_named(path, gone):
    values = published()
    put(values, path, gone)
    assert refusal(values) == f"config.json: {path} is missing or null; the model needs it"


COUNTS = [name for name in NEEDED if isinstance(getattr(K25.text, name), int)]
COUNTS.remove("norm_topk_prob")
NUMBERS = ["routed_scaling_factor", "rms_norm_eps", "rope_theta", "latent_norm_eps"]


@pytest.mark.parametrize("value", [True, 64.0, "64", [64], {}, -64, 1 << 62, float("nan")])
@pytest.mark.parametrize("name", COUNTS)
def test_a_count_must_be_an_integer_in_range(name, value):
    values = published()
    put(values, f"text_config.{name}", value)
    assert f"text_config.{name} is " in refusal(values)


@pytest.mark.parametrize("value", [True, "1", [], 0, -1.0, float("nan"), float("inf"), 1e300])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_must_be_finite_and_in_range(name, value):
    values = published()
    put(values, f"text_config.{name}", value)
    assert f"text_config.{name} is " in refusal(values)


WEIGHTS = "text_config.quantization_config.config_groups.group_0.weights"
UNSUPPORTED = [
    ("architectures", ["KimiK3ForConditionalGeneration"], "KimiK3ForConditionalGeneration"),
    ("architectures", ["LlamaForCausalLM", "DeepseekV3ForCausalLM"], "LlamaForCausalLM"),
    ("architectures", [], "[]"),
    ("architectures", "DeepseekV3ForCausalLM", "DeepseekV3ForCausalLM"),
    ("architectures", ..., "None"),
    ("model_type", "kimi_k3", "'kimi_k3'"),
    ("tie_word_embeddings", True, "True"),
    ("media_placeholder_token_id", 163840, "163840"),
    ("text_config", [], "[]"),
    ("text_config.model_type", "kimi_linear", "'kimi_linear'"),
    ("text_config.scoring_func", "softmax", "'softmax'"),
    ("text_config.topk_method", "greedy", "'greedy'"),
    ("text_config.n_group", 8, "8"),
    ("text_config.topk_group", 4, "4"),
    ("text_config.moe_layer_freq", 2, "2"),
    ("text_config.hidden_act", "gelu", "'gelu'"),
    ("text_config.attention_bias", True, "True"),
    ("text_config.tie_word_embeddings", True, "True"),
    ("text_config.rope_interleave", False, "False"),
    ("text_config.norm_topk_prob", 1, "1"),
    ("text_config.hidden_size", 7169, "7169"),
    ("text_config.moe_intermediate_size", 2049, "2049"),
    ("text_config.qk_rope_head_dim", 63, "63"),
    ("text_config.num_experts_per_tok", 0, "0"),
    ("text_config.n_routed_experts", 7, "num_experts_per_tok is 8; n_routed_experts is only 7"),
    ("text_config.n_routed_experts", 4096, "4096"),
    ("text_config.first_k_dense_replace", 62, "62; num_hidden_layers is only 61"),
    ("text_config.rope_scaling", "yarn", "'yarn'"),
    ("text_config.rope_scaling.type", "dynamic", "'dynamic'"),
    ("text_config.rope_scaling.rope_type", "longrope", "'longrope'"),
    ("text_config.rope_scaling.attention_factor", 1.5, "1.5"),
    ("text_config.rope_scaling.truncate", False, "False"),
    ("text_config.rope_scaling.factor", 0.5, "0.5"),
    ("text_config.rope_parameters", {"rope_theta": 5e4}, "keep one of them"),
    ("text_config.quantization_config.quant_method", "fp8", "'fp8'"),
    ("text_config.quantization_config.format", "nvfp4-pack-quantized", "'nvfp4-pack-quantized'"),
    ("text_config.quantization_config.quantization_status", "frozen", "'frozen'"),
    ("text_config.quantization_config.kv_cache_scheme", {"num_bits": 8}, "num_bits"),
    ("text_config.quantization_config.config_groups", {}, "{}"),
    ("text_config.quantization_config.config_groups.group_1", {}, "exactly one group"),
    ("text_config.quantization_config.config_groups.group_0.targets", ["Embedding"], "Embedding"),
    (
        "text_config.quantization_config.config_groups.group_0.input_activations",
        {"num_bits": 8},
        "num_bits",
    ),
    (f"{WEIGHTS}.num_bits", 8, "8"),
    (f"{WEIGHTS}.group_size", 128, "128"),
    (f"{WEIGHTS}.type", "float", "'float'"),
    (f"{WEIGHTS}.strategy", "channel", "'channel'"),
    (f"{WEIGHTS}.symmetric", False, "False"),
    (f"{WEIGHTS}.dynamic", True, "True"),
    (f"{WEIGHTS}.actorder", "group", "'group'"),
    (f"{WEIGHTS}.block_structure", [128, 128], "[128, 128]"),
    ("vision_config.merge_kernel_size", [4, 4], "[4, 4]"),
    ("vision_config.merge_type", "concat", "'concat'"),
    ("vision_config.pos_emb_type", "rope", "'rope'"),
    ("vision_config.video_attn_type", "temporal", "'temporal'"),
    ("vision_config.mm_projector_type", "patchmergerv2", "'patchmergerv2'"),
    ("vision_config.projector_hidden_act", "relu", "'relu'"),
    ("vision_config.text_hidden_size", 4096, "4096"),
    ("vision_config.mm_hidden_size", 1024, "1024"),
    ("vision_config.vt_num_attention_heads", 27, "1152; expected a multiple of 4 x 27"),
    ("vision_config.patch_size", 0, "0"),
]


@pytest.mark.parametrize(("path", "value", "seen"), UNSUPPORTED)
def test_what_is_not_implemented_is_refused_by_name(path, value, seen):
    values = published()
    put(values, path, value)
    message = refusal(values)
    assert seen in message
    assert message.startswith("config.json: ")
    assert path.rpartition(".")[2] in message or "expected" in message


def test_old_fp8_model_is_refused_by_its_quantization():
    values = flat()
    values["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert "quant_method is 'fp8'" in refusal(values)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "holds a JSON list"),
        (b"null", "holds a JSON NoneType"),
        (b'{"a": 1, "a": 2}', "the key 'a' appears twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b"\xff\xfe{}", "not UTF-8 (byte 0)"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b" " * (1 << 20) + b"{}", "larger than 1048576 bytes"),
        (b'{"architectures": ["\\ud800\\u001b[31m"]}', "'\\ud800\\x1b[31m'"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, data, fault):
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dir(tmp_path)
    message = str(caught.value)
    assert fault in message
    assert "config.json" in message
    assert message.isascii()
    assert "\n" not in message


def test_no_directory_and_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"absent does not exist"):
        ModelConfig.from_dir(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"config\.json: No such file"):
        ModelConfig.from_dir(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigError, match="is not a regular file"):
        ModelConfig.from_dir(tmp_path)
    with pytest.raises(ConfigError, match="is not a directory"):
        ModelConfig.from_dir(PUBLISHED)
