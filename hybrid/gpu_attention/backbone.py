"""The backbone on a torch device: bf16 on CUDA, any type anywhere for reference.

On a machine without a GPU `hybrid.cpu_dense` does the same faster; this one is what runs on CUDA,
and on the CPU the plain statement of the model that the tests compare with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hybrid import yarn
from hybrid.backbone import Routing
from hybrid.config import TextConfig
from hybrid.gpu_attention.kv_cache import LatentCache
from hybrid.gpu_attention.layers import rms_norm, swiglu
from hybrid.gpu_attention.mla import Mla, MlaWeights
from hybrid.gpu_attention.router import route
from hybrid.gpu_attention.weights import WeightReader

MAX_BLOCK = 512


@dataclass(frozen=True, slots=True)
class FeedForward:
    """gate, up and down of a dense layer or a shared expert, [out, in]."""

    gate: Tensor
    up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer without its routed experts. Dense layers have no router."""

    input_layernorm: Tensor
    attention: Mla
    post_attention_layernorm: Tensor
    feed_forward: FeedForward | None  # the shared expert of a layer with experts
    router: Tensor | None  # fp32 [n_routed_experts, hidden_size]
    router_bias: Tensor | None  # fp32 [n_routed_experts]


class TorchBackbone:
    """See `hybrid.backbone.Backbone`."""

    max_block = MAX_BLOCK

    def __init__(
        self, text: TextConfig, reader: WeightReader, kv_tokens: int, dtype: torch.dtype
    ) -> None:
        self.text = text
        self.kv_tokens = kv_tokens
        self.device = reader.device
        self.dtype = dtype
        self._cache = LatentCache.empty(text, kv_tokens, self.device, dtype)
        self._embedding = reader.on_host("model.embed_tokens.weight")  # rows only: never uploaded
        self._layers = [_read_layer(text, reader, layer) for layer in range(text.num_hidden_layers)]
        self._norm = reader("model.norm.weight")
        self._head = reader("lm_head.weight")
        self._table_of: tuple[int, int] = (-1, 0)
        self._table: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))

    @torch.inference_mode()
    def embed(self, token_ids: Sequence[int]) -> Tensor:
        """See Backbone."""
        return self._embedding[torch.tensor(token_ids)].to(self.device)

    @torch.inference_mode()
    def insert(self, x: Tensor, row: int, rows: NDArray[np.float32]) -> Tensor:
        """See Backbone."""
        x[row : row + len(rows)] = torch.from_numpy(rows).to(self.device, self.dtype)
        return x

    @torch.inference_mode()
    def attend(self, layer: int, x: Tensor, start: int) -> Tensor:
        """See Backbone."""
        part = self._layers[layer]
        hidden = rms_norm(x, part.input_layernorm, self.text.rms_norm_eps)
        return x + part.attention(hidden, self._cache, start, self._positions(start, len(x)))

    @torch.inference_mode()
    def dense(self, layer: int, x: Tensor) -> Tensor:
        """See Backbone."""
        return x + self._feed_forward(layer, self._post_norm(layer, x))

    @torch.inference_mode()
    def route(self, layer: int, x: Tensor) -> Routing:
        """See Backbone."""
        part = self._layers[layer]
        hidden = self._post_norm(layer, x)
        assert part.router is not None
        assert part.router_bias is not None
        ids, weights = route(hidden, part.router, part.router_bias, self.text)
        return Routing(
            hidden=hidden.float().cpu().numpy(),
            expert_ids=ids.to(torch.int32).cpu().numpy(),
            weights=weights.cpu().numpy(),
            kept=hidden,
        )

    @torch.inference_mode()
    def shared(self, layer: int, routing: Routing) -> Tensor | None:
        """See Backbone. None where the model has no shared expert."""
        if self._layers[layer].feed_forward is None:
            return None
        return self._feed_forward(layer, routing.kept)

    @torch.inference_mode()
    def combine(self, x: Tensor, shared: Tensor | None, routed: NDArray[np.float32]) -> Tensor:
        """See Backbone."""
        total = torch.from_numpy(routed).to(self.device)
        if shared is not None:
            total = total + shared.float()
        return x + total.to(self.dtype)

    @torch.inference_mode()
    def logits(self, x: Tensor) -> NDArray[np.float32]:
        """See Backbone."""
        hidden = rms_norm(x, self._norm, self.text.rms_norm_eps)
        return functional.linear(hidden, self._head).float().cpu().numpy()

    def last(self, x: Tensor) -> Tensor:
        """See Backbone."""
        return x[-1:]

    def _post_norm(self, layer: int, x: Tensor) -> Tensor:
        weight = self._layers[layer].post_attention_layernorm
        return rms_norm(x, weight, self.text.rms_norm_eps)

    def _feed_forward(self, layer: int, hidden: Tensor) -> Tensor:
        part = self._layers[layer].feed_forward
        assert part is not None
        return swiglu(hidden, part.gate, part.up, part.down)

    def _positions(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """cos and sin of a block; every layer of a step asks for the same ones."""
        if self._table_of != (start, count):
            cos, sin = yarn.cos_sin(self.text, start, count)
            self._table = (
                torch.from_numpy(cos).to(self.device),
                torch.from_numpy(sin).to(self.device),
            )
            self._table_of = (start, count)
        return self._table


def _read_layer(text: TextConfig, reader: WeightReader, layer: int) -> Layer:
    prefix = f"model.layers.{layer}"
    attention = MlaWeights(
        **{
            name: reader(f"{prefix}.self_attn.{name}.weight")
            for name in MlaWeights.__dataclass_fields__
        }
    )
    moe = text.is_moe(layer)
    return Layer(
        input_layernorm=reader(f"{prefix}.input_layernorm.weight"),
        attention=Mla(layer, attention, text, yarn.softmax_scale(text)),
        post_attention_layernorm=reader(f"{prefix}.post_attention_layernorm.weight"),
        feed_forward=_read_feed_forward(text, reader, layer),
        router=reader(f"{prefix}.mlp.gate.weight", torch.float32) if moe else None,
        router_bias=(
            reader(f"{prefix}.mlp.gate.e_score_correction_bias", torch.float32) if moe else None
        ),
    )


def _read_feed_forward(text: TextConfig, reader: WeightReader, layer: int) -> FeedForward | None:
    if text.is_moe(layer) and not text.n_shared_experts:
        return None
    part = "mlp.shared_experts" if text.is_moe(layer) else "mlp"
    gate, up, down = (
        reader(f"model.layers.{layer}.{part}.{name}_proj.weight") for name in ("gate", "up", "down")
    )
    return FeedForward(gate, up, down)
