"""What a model takes: bytes by component, bytes and arithmetic of a token.

The backbone is everything but the routed experts. Its large matrices can be kept as int8 codes with
a bf16 scale for 32 inputs, 17/32 of the bytes; embedding, router and norms stay as they are
(hybrid/cpu_dense/codes.py).
"""

from dataclasses import dataclass
from functools import lru_cache

from hybrid.cache.source import slot_bytes
from hybrid.config import ModelConfig, TextConfig
from hybrid.inventory import Inventory, take_inventory

CODED = ("attention", "dense", "shared", "head")
VISION = ("vision", "projector")
BLOCK_TOKENS = 512  # of a prompt: the backbone reads its weights once a block
PASS_TOKENS = 2048  # each expert is read once a pass (hybrid/timeline.py)
ON_HOST = ("embedding",)  # rows of it are copied, on any device


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes of the whole model and work of one token; `flop` counts a multiply-add as two."""

    layers: int
    moe_layers: int
    experts: int  # of a layer
    per_token: int  # of them
    hidden: int
    context_limit: int
    record_bytes: int  # of one expert
    backbone: dict[str, int]  # bytes by component, as kept in memory
    kv_token_bytes: int
    expert_flop: int  # of one expert and token
    token_flop: dict[str, int]  # by component of the backbone, without the cache
    absorbed_flop: int  # of one pair of positions: cpu, and a token of an answer
    expanded_flop: int  # the same in a prompt on a device, with rebuilding keys and values

    @property
    def records(self) -> int:
        """Routed experts of all layers."""
        return self.moe_layers * self.experts

    @property
    def slot_bytes(self) -> int:
        """Room that one record takes in memory."""
        return slot_bytes(self.record_bytes)

    @property
    def routed_bytes(self) -> int:
        """All routed experts."""
        return self.records * self.record_bytes

    @property
    def token_experts_bytes(self) -> int:
        """Routed experts that one token reads."""
        return self.moe_layers * self.per_token * self.record_bytes

    def token_bytes(self, *components: str) -> int:
        """Bytes of these components of the backbone; a token reads all of them."""
        return sum(self.backbone.get(name, 0) for name in components)


def needs(
    config: ModelConfig, *, weights: str, vision: bool, inventory: Inventory | None = None
) -> Needs:
    """Add up a model with the backbone as `weights`, "bf16" or "int8".

    Without the `inventory` of a checkpoint it is that of the published form.
    """
    text, sizes = config.text, inventory or _published(config)
    parts = {each.name: each for each in sizes.components}
    backbone: dict[str, int] = {
        name: part.loaded_bytes * 17 // 32
        if weights == "int8" and name in CODED
        else part.loaded_bytes
        for name, part in parts.items()
        if name != "routed" and (vision or name not in VISION)
    }
    records = text.moe_layers * text.n_routed_experts
    routed = parts["routed"].loaded_bytes if "routed" in parts else 0
    used = ("attention", "dense", "shared", "router", "head")
    return Needs(
        layers=text.num_hidden_layers,
        moe_layers=text.moe_layers,
        experts=text.n_routed_experts,
        per_token=text.num_experts_per_tok,
        hidden=text.hidden_size,
        context_limit=text.max_position_embeddings,
        record_bytes=routed // records if records else 0,
        backbone=backbone,
        kv_token_bytes=sizes.kv_token_bytes,
        expert_flop=2 * 3 * text.hidden_size * text.moe_intermediate_size,
        token_flop={name: 2 * parts[name].parameters for name in used if name in parts},
        absorbed_flop=_absorbed_flop(text),
        expanded_flop=_expanded_flop(text),
    )


@lru_cache(maxsize=4)
def _published(config: ModelConfig) -> Inventory:
    return take_inventory(config)


def _absorbed_flop(text: TextConfig) -> int:
    """Scores over latent and rotary part, then the mix of latents, for every head (spec §3.2)."""
    row = 2 * text.kv_lora_rank + text.qk_rope_head_dim
    return 2 * text.num_attention_heads * row * text.num_hidden_layers


def _expanded_flop(text: TextConfig) -> int:
    """Scores and mix over rebuilt heads, and a block's share of rebuilding them."""
    head = text.qk_nope_head_dim + text.v_head_dim
    rebuilt = head * text.kv_lora_rank / BLOCK_TOKENS
    pair = head + text.qk_rope_head_dim + rebuilt
    return int(2 * text.num_attention_heads * pair * text.num_hidden_layers)
