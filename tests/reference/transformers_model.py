"""Transformers' native model on the same checkpoint, as an independent judge of our numbers.

Its own INT4 path is left out: `compressed-tensors` unpacks the experts into a dense copy of the
checkpoint, which is then loaded in fp32, so that what is compared is the mathematics alone.
"""

import json
from pathlib import Path

import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized import unpack_from_int32
from safetensors.torch import load_file, save_file


def dense_copy(model_dir: Path, target: Path, *, rounded: bool = False) -> Path:
    """Write the checkpoint with its experts unpacked; `rounded` to bf16 as the library would."""
    tensors = {}
    for shard in sorted(model_dir.glob("*.safetensors")):
        tensors |= load_file(shard)
    packed = [name for name in tensors if name.endswith(".weight_packed")]
    for name in packed:
        base = name.removesuffix("_packed")
        scale = tensors.pop(f"{base}_scale").float()
        shape = torch.Size(tensors.pop(f"{base}_shape").tolist())
        codes = unpack_from_int32(tensors.pop(name), 4, shape)
        weight = codes.float() * scale.repeat_interleave(shape[1] // scale.shape[1], dim=1)
        tensors[base] = weight.bfloat16().float() if rounded else weight
    target.mkdir()
    dense = {name: value.float().contiguous() for name, value in tensors.items()}
    save_file(dense, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model_dir / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(_native(config)))
    return target


def _native(config: dict) -> dict:
    """config.json without quantization, under transformers' own names (spec §1.4)."""
    text = config.get("text_config", config)
    del text["quantization_config"]
    text["model_type"] = "deepseek_v3"
    text["dtype"] = config["dtype"] = "float32"
    if "vision_config" in config:
        vision = config["vision_config"]
        config["vision_config"] = {
            name.removeprefix("vt_").removeprefix("init_"): value for name, value in vision.items()
        }
        config["projection_hidden_size"] = vision["mm_hidden_size"]
        config["image_token_id"] = config["media_placeholder_token_id"]
    return config


class Oracle:
    """The model in fp32, with the routing of every layer recorded on the way."""

    def __init__(self, dense_dir: Path) -> None:
        from transformers import DeepseekV3ForCausalLM, Kimi_K25ForConditionalGeneration

        config = json.loads((dense_dir / "config.json").read_text())
        nested = "text_config" in config
        kind = Kimi_K25ForConditionalGeneration if nested else DeepseekV3ForCausalLM
        self.model, report = kind.from_pretrained(
            dense_dir, dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
        )
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        self.model.eval()
        self.routing: list[np.ndarray] = []  # expert ids [tokens, k] of each layer with experts
        for name, module in self.model.named_modules():
            if name.endswith(".mlp.experts"):
                module.register_forward_pre_hook(self._record)

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> np.ndarray:
        """[len(ids), vocab_size] in fp32; `routing` holds what was chosen."""
        self.routing.clear()
        return self.model(input_ids=torch.tensor([ids])).logits[0].float().numpy()

    @torch.inference_mode()
    def greedy(self, ids: list[int], count: int) -> list[int]:
        """`count` tokens, without a cache: each from the whole prefix."""
        ids = list(ids)
        for _ in range(count):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[-count:]

    def _record(self, _module: torch.nn.Module, args: tuple) -> None:
        self.routing.append(args[1].reshape(-1, args[1].shape[-1]).numpy())
