"""What experts in VRAM would give. No kernel computes them there yet: it stands beside a plan.

All cards count for it, less what the backbone and a reserve take. Hits are computed by the device
while the CPU computes the rest.
"""

from typing import Any

from hybrid.hardware import Hardware
from hybrid.placement.hits import hits
from hybrid.placement.needs import Needs
from hybrid.placement.options import PlanOptions
from hybrid.placement.rates import Speeds, free_vram
from hybrid.placement.share import Shares
from hybrid.placement.speed import decode


def potential(
    hardware: Hardware, options: PlanOptions, model: Needs, share: Shares, speeds: Speeds
) -> dict[str, Any] | None:
    """Slots a layer and tokens/s with experts on the GPUs; None where there is no room for any."""
    if share.device != "cuda" or not share.fits or not model.records:
        return None
    room = sum(map(free_vram, hardware.gpus)) - share.used("vram")
    if options.vram_budget is not None:
        room = min(room, options.vram_budget)
    most = min(model.experts, max(0, room) // model.slot_bytes // model.moe_layers)
    if not most:
        return None
    ways = [_with_slots(options, model, share, speeds, slots) for slots in range(1, most + 1)]
    return max(ways, key=lambda way: float(way["decode_tok_s"]))


def _with_slots(
    options: PlanOptions, model: Needs, share: Shares, speeds: Speeds, slots: int
) -> dict[str, Any]:
    """With so many slots a layer: a slow card may be better left partly empty."""
    vram = slots * model.moe_layers
    ram = min(share.slots.resident, model.records - vram)
    where = hits(model.records, vram, ram, options.routing)
    seconds = sum(decode(model, speeds, where, "cuda").values())
    in_ram = ram // model.moe_layers
    return {
        "what": "experts on the GPU, which the runtime does not do yet",
        "expert_slots_per_layer": {
            "vram": slots, "ram": in_ram, "nvme": model.experts - slots - in_ram,
        },
        "decode_tok_s": round(1 / seconds, 4),
    }  # fmt: skip
