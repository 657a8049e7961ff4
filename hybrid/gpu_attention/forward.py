"""What each verb of the backbone does on the device: operations on a step's memory, and no more.

Nothing here waits for the device, copies from or to the host, or looks at a value. What differs
from one step to the next lies in the step's memory or in its place (step.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hybrid import yarn
from hybrid.config import TextConfig
from hybrid.gpu_attention.codes import Weight
from hybrid.gpu_attention.kv_cache import LatentCache
from hybrid.gpu_attention.layers import rms_norm
from hybrid.gpu_attention.mla import Mla, MlaWeights, Place
from hybrid.gpu_attention.ops import linear, norm_linear
from hybrid.gpu_attention.router import route
from hybrid.gpu_attention.step import Decision, Step
from hybrid.gpu_attention.weights import WeightReader


@dataclass(frozen=True, slots=True)
class FeedForward:
    """A dense layer or a shared expert."""

    gate_up: Weight  # gate_proj above up_proj: [2 * intermediate, hidden_size]
    down: Weight  # [hidden_size, intermediate]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer without its routed experts. Dense layers have no router."""

    attention: Mla
    post_attention_layernorm: Tensor
    feed_forward: FeedForward | None  # the shared expert of a layer with experts
    router: Tensor | None  # [n_routed_experts, hidden_size], its exact values
    router_bias: Tensor | None  # fp32 [n_routed_experts]


@dataclass(frozen=True, slots=True)
class Forward:
    """All weights on the device, and the cache."""

    text: TextConfig
    layers: Sequence[Layer]
    norm: Tensor
    head: Weight  # [vocab_size, hidden_size]
    cache: LatentCache

    def begin(self, step: Step) -> None:
        """Find the block's rows in the cache, for all layers."""
        step.slots.copy_(self.cache.slots(step.up.device["positions"]))

    def attend(self, step: Step, layer: int, place: Place) -> None:
        """x += MLA(RMSNorm(x))."""
        step.x.add_(self.layers[layer].attention(step.x, self.cache, place))

    def dense(self, step: Step, layer: int) -> None:
        """x += SwiGLU(RMSNorm(x))."""
        part, eps = self.layers[layer], self.text.rms_norm_eps
        own = part.feed_forward
        assert own is not None
        both = norm_linear(step.x, part.post_attention_layernorm, eps, own.gate_up)
        step.x.add_(_gated(both, own))

    def route(self, step: Step, layer: int, decision: Decision) -> None:
        """Fill a decision; x stays as it is."""
        part = self.layers[layer]
        assert part.router is not None
        assert part.router_bias is not None
        hidden = rms_norm(step.x, part.post_attention_layernorm, self.text.rms_norm_eps)
        ids, weights = route(hidden, part.router, part.router_bias, self.text)
        told = decision.mirror.device
        decision.hidden.copy_(hidden)
        told["hidden"].copy_(hidden)
        told["ids"].copy_(ids)
        told["weights"].copy_(weights)

    def shared(self, step: Step, layer: int, decision: Decision) -> None:
        """The shared expert of what was decided about."""
        own = self.layers[layer].feed_forward
        assert own is not None
        step.shared.copy_(_gated(linear(decision.hidden, own.gate_up), own))

    def combine(self, step: Step, *, shared: bool) -> None:
        """x += routed + shared, rounded once to the activation type."""
        total = step.routed.device["routed"]
        if shared:
            total = total + step.shared.float()
        step.x.add_(total.to(step.x.dtype))

    def logits(self, rows: Tensor, out: Tensor) -> None:
        """Final norm and head of rows [n, hidden_size] of x: out fp32 [n, vocab_size]."""
        out.copy_(norm_linear(rows, self.norm, self.text.rms_norm_eps, self.head))


def read_forward(
    text: TextConfig, reader: WeightReader, kv_tokens: int, dtype: torch.dtype
) -> Forward:
    """Put all weights but the embedding on the reader's device, and reserve the cache."""
    return Forward(
        text=text,
        layers=[_read_layer(text, reader, layer) for layer in range(text.num_hidden_layers)],
        norm=reader("model.norm.weight"),
        head=reader.matrix("lm_head.weight"),
        cache=LatentCache.empty(text, kv_tokens, reader.device, dtype),
    )


def _gated(both: Tensor, own: FeedForward) -> Tensor:
    """down(silu(gate) * up) of gate and up [tokens, 2 * intermediate] (spec §3.5)."""
    gate, up = both.chunk(2, dim=-1)
    return linear(functional.silu(gate) * up, own.down)


def _read_layer(text: TextConfig, reader: WeightReader, layer: int) -> Layer:
    prefix, moe = f"model.layers.{layer}", text.is_moe(layer)
    gate = f"{prefix}.mlp.gate"
    return Layer(
        attention=Mla(layer, MlaWeights.read(text, reader, layer), text, yarn.softmax_scale(text)),
        post_attention_layernorm=reader(f"{prefix}.post_attention_layernorm.weight"),
        feed_forward=_read_feed_forward(text, reader, layer),
        router=_read_router(reader, f"{gate}.weight") if moe else None,
        router_bias=reader(f"{gate}.e_score_correction_bias", torch.float32) if moe else None,
    )


def _read_router(reader: WeightReader, name: str) -> Tensor:
    """fp32, or bf16 where that says the same in half of the bytes: it is multiplied in fp32."""
    wide = reader.on_host(name, torch.float32)
    halves = np.ascontiguousarray(wide.numpy()).view(np.uint16).reshape(-1, 2)  # low one first
    return wide.to(reader.device, torch.float32 if halves[:, 0].any() else torch.bfloat16)


def _read_feed_forward(text: TextConfig, reader: WeightReader, layer: int) -> FeedForward | None:
    if text.is_moe(layer) and not text.n_shared_experts:
        return None
    part = f"model.layers.{layer}.mlp" + (".shared_experts" if text.is_moe(layer) else "")
    gate, up, down = (f"{part}.{name}_proj.weight" for name in ("gate", "up", "down"))
    return FeedForward(reader.matrix(gate, up), reader.matrix(down))
