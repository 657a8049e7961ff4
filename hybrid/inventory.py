"""What a checkpoint consists of: parameters and bytes per component and per tier.

    routed experts    -> RAM      one token reads num_experts_per_tok of n_routed_experts
    everything else   -> device   one token reads all of it, but a single row of the embedding;
                                  vision and projector are read for images only

Sizes come from the headers of a checkpoint, or from the configuration alone, which gives those of
the published form.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from hybrid.checkpoint import Checkpoint
from hybrid.checkpoint.expected import (
    WORDS_PER_INT32,
    Component,
    ExpectedTensor,
    expected_tensors,
)
from hybrid.checkpoint.header import ITEM_BYTES
from hybrid.config import ModelConfig, TextConfig

Tier = Literal["device", "RAM"]
KV_ITEM_BYTES = 2  # bf16


@dataclass(frozen=True, slots=True)
class ComponentSize:
    """The sums over all tensors of one component."""

    name: Component
    tensors: int
    parameters: int  # logical: a packed word counts 8, scales and shapes count 0
    bytes: int  # in the files
    loaded_bytes: int  # in its tier: weight_shape stays behind
    token_bytes: int  # read for one token in decode
    token_parameters: int  # used for one token; the embedding counts whole, as is usual

    @property
    def tier(self) -> Tier:
        """Where the component lives while the model runs; of the embedding only rows are read."""
        return "RAM" if self.name in ("routed", "embedding") else "device"


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every component that the model has, largest first, and its KV cache."""

    components: tuple[ComponentSize, ...]
    kv_token_bytes: int  # latent KV cache of one token over all layers

    @property
    def tensors(self) -> int:
        """Number of tensors of the model."""
        return sum(c.tensors for c in self.components)

    @property
    def bytes(self) -> int:
        """Bytes of all tensors in the files."""
        return sum(c.bytes for c in self.components)

    @property
    def parameters(self) -> int:
        """Logical parameters, vision included."""
        return sum(c.parameters for c in self.components)

    @property
    def token_parameters(self) -> int:
        """Parameters used for one token of text, embedding and head included."""
        return sum(c.token_parameters for c in self.components)

    def tier_bytes(self, tier: Tier) -> int:
        """Bytes that the weights of a tier take once loaded."""
        return sum(c.loaded_bytes for c in self.components if c.tier == tier)

    def tier_token_bytes(self, tier: Tier) -> int:
        """Bytes of weights that one decoded token reads from a tier."""
        return sum(c.token_bytes for c in self.components if c.tier == tier)


def take_inventory(config: ModelConfig, checkpoint: Checkpoint | None = None) -> Inventory:
    """Add up a checkpoint, or without one what the published form of this configuration has."""
    tensors: dict[Component, list[tuple[ExpectedTensor, int]]] = defaultdict(list)
    for want in expected_tensors(config):
        if checkpoint is None:
            nbytes = math.prod(want.shape) * ITEM_BYTES[want.dtypes[0]]
        elif want.name in checkpoint:
            nbytes = checkpoint.info(want.name).nbytes
        else:
            continue  # optional and absent
        tensors[want.component].append((want, nbytes))
    sizes = [_add_up(name, found, config.text) for name, found in tensors.items()]
    text = config.text
    kv_values = (text.kv_lora_rank + text.qk_rope_head_dim) * text.num_hidden_layers
    return Inventory(tuple(sorted(sizes, key=lambda size: -size.bytes)), kv_values * KV_ITEM_BYTES)


def _add_up(
    name: Component, found: list[tuple[ExpectedTensor, int]], text: TextConfig
) -> ComponentSize:
    parameters = sum(_parameters(want) for want, _ in found)
    loaded = sum(n for want, n in found if not want.name.endswith(".weight_shape"))
    share = _token_share(name, text)
    used = Fraction(1) if name == "embedding" else share
    return ComponentSize(
        name=name,
        tensors=len(found),
        parameters=parameters,
        bytes=sum(n for _, n in found),
        loaded_bytes=loaded,
        token_bytes=int(loaded * share),
        token_parameters=int(parameters * used),
    )


def _token_share(name: Component, text: TextConfig) -> Fraction:
    """Return which part of a component one token reads."""
    if name == "routed":
        return Fraction(text.num_experts_per_tok, text.n_routed_experts)
    if name == "embedding":
        return Fraction(1, text.vocab_size)
    return Fraction(0 if name in ("vision", "projector") else 1)


def _parameters(want: ExpectedTensor) -> int:
    if want.name.endswith((".weight_scale", ".weight_shape")):
        return 0
    words = WORDS_PER_INT32 if want.name.endswith(".weight_packed") else 1
    return math.prod(want.shape) * words
