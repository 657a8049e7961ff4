"""Bytes before anything is allocated: what must fit, and what the routed experts get beside it.

    first card    backbone, KV cache, tower, scratch | experts (hybrid/cache/card_room.py)
    other cards                                        experts
    RAM           embedding table (without a card: the backbone too) | experts
    file          the rest of them

Too little room for the experts is no reason to refuse: what does not fit stays in the file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hybrid.cache.capacity import Capacity, within
from hybrid.cache.card_room import CardRoom, card_room
from hybrid.cache.source import slot_bytes
from hybrid.checkpoint import Checkpoint
from hybrid.config import TextConfig
from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import PlacementError
from hybrid.load_options import LoadOptions
from hybrid.memory import free_host_bytes
from hybrid.placement.needs import PASS_TOKENS
from hybrid.placement.share import DEVICE_SCRATCH
from hybrid.vision.loading import vision_names

KV_BYTES = 2  # bf16
EMBEDDING = "model.embed_tokens.weight"  # its rows are looked up on the host
NO_CARDS = CardRoom((), (), 0, 0)


class CardTooSmallError(PlacementError):
    """The first card has no room for the backbone: another device or smaller weights may do."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Slots of the experts over all memories, and which cards have some of them."""

    experts: Capacity
    cards: CardRoom


def reserve(
    text: TextConfig, checkpoint: Checkpoint, options: LoadOptions, free: Sequence[int] = ()
) -> Reservation:
    """Share out memory; `free`: bytes of each card, the backbone's first, none without one.

    Raises PlacementError before anything is allocated where something must fit and does not.
    """
    assert options.kv_tokens is not None
    sizes = {name: backbone_bytes(checkpoint, name, options) for name in backbone_names(checkpoint)}
    latent = text.kv_lora_rank + text.qk_rope_head_dim
    must = sum(sizes.values()) + text.num_hidden_layers * options.kv_tokens * latent * KV_BYTES
    if options.vision:
        must += sum(checkpoint.info(name).nbytes for name in vision_names(checkpoint))
    on_host, cards = must, NO_CARDS
    if options.device == "cuda":
        on_host = sizes[EMBEDDING]
        on_card = must - on_host + DEVICE_SCRATCH
        _require_on_card(on_card, free[0], options)
        cards = _on_cards(text, options, [free[0] - on_card, *free[1:]])
    left = free_host_bytes() - on_host
    if left < 0:
        raise PlacementError(
            f"{_needed('host', on_host, on_host + left)}; lower kv_tokens, or use a machine with "
            "more"
        )
    return Reservation(share_experts(text, options, left, cards.slots), cards)


def share_experts(text: TextConfig, options: LoadOptions, free: int, on_cards: int = 0) -> Capacity:
    """Slots for the experts, with `free` bytes of RAM beside everything else.

    `on_cards`: records that cards hold. Without a card a `vram_budget` is a second share of RAM.
    """
    size, records, ram = slot_bytes(_record_bytes(text)), _records(text), options.ram_budget
    if options.device == "cuda":  # as if the cards' slots were RAM that came on top
        share = within(free + on_cards * size, records, size, on_cards * size, ram)
        needed = share.ram * size
    else:
        share = within(free, records, size, options.vram_budget or 0, ram)
        needed = (share.ram + share.device) * size
    if needed > free:
        raise PlacementError(
            f"the experts would take {needed / 1e9:,.3f} GB of RAM but the rest leaves only "
            f"{max(0, free) / 1e9:,.3f} GB; lower ram_budget and vram_budget, or kv_tokens"
        )
    return share


def backbone_bytes(checkpoint: Checkpoint, name: str, options: LoadOptions) -> int:
    """Memory of one tensor once it is loaded."""
    info = checkpoint.info(name)
    coded = len(info.shape) == 2 and not name.endswith(("embed_tokens.weight", "mlp.gate.weight"))
    if options.backbone_weights == "int8" and coded:
        return info.nbytes * 17 // 32  # a byte a weight, and two for every 32
    return info.nbytes


def backbone_names(checkpoint: Checkpoint) -> Iterator[str]:
    """Text tensors that are not routed experts."""
    return (
        name
        for name in checkpoint
        if name.startswith(("model.", "lm_head.")) and ".mlp.experts." not in name
    )


def _on_cards(text: TextConfig, options: LoadOptions, free: Sequence[int]) -> CardRoom:
    return card_room(
        free,
        record_bytes=_record_bytes(text),
        records=_records(text),
        hidden=text.hidden_size,
        per_token=text.num_experts_per_tok,
        pass_tokens=PASS_TOKENS,
        budget=options.vram_budget,
    )


def _require_on_card(needed: int, free: int, options: LoadOptions) -> None:
    if needed > free:
        ways = ["lower kv_tokens", "device='cpu'"]
        if options.backbone_weights == "bf16":
            ways.insert(1, "backbone_weights='int8'")
        raise CardTooSmallError(f"{_needed('device', needed, free)}; try {', '.join(ways)}")


def _needed(where: str, needed: int, free: int) -> str:
    return (
        f"without its routed experts the model needs {needed / 1e9:,.3f} GB of {where} memory "
        f"but {max(0, free) / 1e9:,.3f} GB are free"
    )


def _records(text: TextConfig) -> int:
    return text.moe_layers * text.n_routed_experts


def _record_bytes(text: TextConfig) -> int:
    return RecordShape.of(text).nbytes
