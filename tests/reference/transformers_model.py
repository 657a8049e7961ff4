"""Transformers' native model on the same checkpoint, as an independent judge of our numbers.

Its own INT4 path is left out: `compressed-tensors` unpacks the experts into a dense copy of the
checkpoint, which is then loaded in fp32, so that what is compared is the mathematics alone.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


Noise = Callable[[torch.Tensor], torch.Tensor]


class Oracle:
    """The model in fp32, with the routing of every layer recorded on the way."""

    def __init__(self, dense_dir: Path) -> None:
        from transformers import DeepseekV3ForCausalLM, Kimi_K25ForConditionalGeneration

        config = json.loads((dense_dir / "config.json").read_text())
        nested = "text_config" in config
        kind = Kimi_K25ForConditionalGeneration if nested else DeepseekV3ForCausalLM
        self.model, report = kind.from_pretrained(
            dense_dir,
            dtype=torch.float32,
            output_loading_info=True,
            attn_implementation="eager",
            experts_implementation="eager",
        )
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        self.model.eval()
        self.routing: list[np.ndarray] = []  # expert ids [tokens, k] of each layer with experts
        self._noise: Noise = lambda x: x
        for name, module in self.model.named_modules():
            if name.endswith(".mlp.experts"):
                module.forward = self._noisy_experts(module.forward)
            if name.endswith(".self_attn") and hasattr(module, "expand_kv"):
                module.expand_kv = self._noisy_cache(module.expand_kv)

    @torch.inference_mode()
    def logits(
        self,
        ids: list[int],
        noise: Noise = lambda x: x,
        pictures: dict[int, np.ndarray] | None = None,
    ) -> np.ndarray:
        """[len(ids), vocab_size] in fp32; `routing` holds what was chosen.

        `noise` is applied where our runtime rounds: to what goes into an expert's matrices and to
        what goes into the KV cache. `pictures`: rows [tokens, hidden] from a row of the prompt on.
        """
        self.routing.clear()
        self._noise = noise
        rows = self.model.get_input_embeddings()(torch.tensor([ids]))
        for start, picture in (pictures or {}).items():
            rows[0, start : start + len(picture)] = torch.from_numpy(picture)
        return self.model(inputs_embeds=rows).logits[0].float().numpy()

    @torch.inference_mode()
    def features(self, pixels: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
        """What tower and projector make of one item: [tokens, hidden].

        `pixels`: [t * h * w, 3, patch, patch], normalised. The wrapper for video is left out: it
        counts the tokens of t frames where there are those of one (spec §3.7).
        """
        model = self.model.model
        seen = model.vision_tower(torch.from_numpy(pixels), grid_thw=torch.tensor([grid]))
        return model.mm_projector(seen.pooler_output).squeeze(1).numpy()

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """`count` tokens, without a cache: each from the whole prefix."""
        ids = list(ids)
        for _ in range(count):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[-count:]

    def sensitivity(
        self,
        ids: list[int],
        unit: float,
        draws: int = 6,
        pictures: dict[int, np.ndarray] | None = None,
    ) -> float:
        """How far logits move at most if every noisy value x becomes x (1 +- unit), sign random.

        To first order the logits' error is a sum of (derivative x value x relative error) over all
        places. Rounding has |relative error| <= unit, at random; a draw takes all of them at full
        size, so it moves the sum by sqrt(3) times the deviation that rounding causes, or more.
        """
        exact = self.logits(ids, pictures=pictures)
        worst = 0.0
        for seed in range(draws):
            generator = torch.Generator().manual_seed(seed)

            def noise(x: torch.Tensor, generator: torch.Generator = generator) -> torch.Tensor:
                sign = torch.randint(0, 2, x.shape, generator=generator) * 2 - 1
                return x * (1 + unit * sign)

            worst = max(worst, float(np.abs(self.logits(ids, noise, pictures) - exact).max()))
        return worst

    def _noisy_experts(self, forward: Callable) -> Callable:
        linear = torch.nn.functional.linear

        def replaced(hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> Any:
            self.routing.append(ids.reshape(-1, ids.shape[-1]).numpy().copy())
            torch.nn.functional.linear = lambda x, weight: linear(self._noise(x), weight)
            try:
                return forward(hidden, ids, weights)
            finally:
                torch.nn.functional.linear = linear

        return replaced

    def _noisy_cache(self, expand_kv: Callable) -> Callable:
        return lambda c, k_rope: expand_kv(self._noise(c), self._noise(k_rope))
