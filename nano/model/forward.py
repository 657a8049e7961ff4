"""The forward pass, whole: a batch of conversations in, logits of the rows that are learnt out."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hybrid.config import ModelConfig
from hybrid.yarn import cos_sin
from nano.model.attention import attention, rms_norm
from nano.model.batch import Batch
from nano.model.experts import routed
from nano.model.parameters import Parameters
from nano.model.vision import features


@dataclass(frozen=True, slots=True)
class Output:
    """What one pass yields."""

    logits: Tensor  # [m, vocab] of the rows `sources`
    loads: dict[int, Tensor]  # of each MoE layer: how often an expert was chosen [experts]


class Graph:
    """The model of one configuration; weights are given at each call."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._turns = torch.empty(0, config.text.qk_rope_head_dim // 2, dtype=torch.complex64)

    def __call__(self, p: Parameters, batch: Batch) -> Output:
        """Return the logits of `batch.sources`."""
        text = self.config.text
        x = self._embedded(p, batch)
        turn = self._turn(int(batch.positions.max()) + 1)[batch.positions]
        loads: dict[int, Tensor] = {}
        for layer in range(text.num_hidden_layers):
            prefix = f"model.layers.{layer}."
            h = rms_norm(x, p[f"{prefix}input_layernorm.weight"], text.rms_norm_eps)
            x = x + attention(text, p, layer, h, batch, turn)
            h = rms_norm(x, p[f"{prefix}post_attention_layernorm.weight"], text.rms_norm_eps)
            if text.is_moe(layer):
                out, loads[layer] = routed(text, p, layer, h)
                x = x + (out + _swiglu(p, f"{prefix}mlp.shared_experts.", h))
            else:
                x = x + _swiglu(p, f"{prefix}mlp.", h)
        last = rms_norm(x[batch.sources], p["model.norm.weight"], text.rms_norm_eps)
        return Output(last @ p["lm_head.weight"].T, loads)

    def _embedded(self, p: Parameters, batch: Batch) -> Tensor:
        x = functional.embedding(batch.ids, p["model.embed_tokens.weight"])
        if not batch.media or self.config.vision is None:
            return x
        rows = features(self.config.vision, p, [item for _, item in batch.media])
        places = [torch.arange(at, at + item.tokens) for at, item in batch.media]
        return x.index_copy(0, torch.cat(places), torch.cat(rows))

    def _turn(self, count: int) -> Tensor:
        """Unit numbers of positions 0 to count - 1."""
        if len(self._turns) < count:
            cos, sin = cos_sin(self.config.text, 0, max(count, 512))
            self._turns = torch.complex(torch.from_numpy(cos), torch.from_numpy(sin))
        return self._turns


def _swiglu(p: Parameters, prefix: str, h: Tensor) -> Tensor:
    gate = h @ p[f"{prefix}gate_proj.weight"].T
    up = h @ p[f"{prefix}up_proj.weight"].T
    return (functional.silu(gate) * up) @ p[f"{prefix}down_proj.weight"].T
