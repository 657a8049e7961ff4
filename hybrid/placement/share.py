"""Who gets which bytes: the loader's own arithmetic, on a machine that need not be this one.

    backbone, vision tower, KV cache   the device if there is one, else RAM; must fit
    routed experts                     slots of RAM for what is free (hybrid/cache/capacity.py),
                                       the rest is read from the file when it is asked for

Scratch is not reserved by the loader: it comes out of what is left, and a plan says if that is
too little. So is one GiB (the reserve) that experts leave to others where they take all there is.
"""

from dataclasses import dataclass

from hybrid.cache.capacity import Capacity, within
from hybrid.hardware import Hardware
from hybrid.placement.needs import ON_HOST, Needs
from hybrid.placement.options import PlanOptions
from hybrid.placement.rates import best_gpu, free_vram

SYSTEM = 4 << 30  # of RAM that others use, where nobody has said what is free
DEVICE_SCRATCH = 3 << 28  # scores (hybrid/gpu_attention/mla.py) and rows of a block
TOWER_SCRATCH = 700_000_000  # on a CPU (docs/limits.md)
HOST_SCRATCH = 600_000_000  # outputs of experts for a pass, rows of a block


@dataclass(frozen=True, slots=True)
class Shares:
    """Bytes of each component by tier, and the slots of the experts."""

    device: str  # where the backbone is: "cpu" or "cuda"
    table: dict[str, dict[str, int]]  # component -> tier -> bytes
    slots: Capacity
    room: dict[str, int]  # tier -> bytes that this process may take
    missing: dict[str, int]  # tier -> bytes short of what must fit; empty if it fits
    scratch_short: int  # bytes of RAM that scratch lacks

    @property
    def fits(self) -> bool:
        """Whether the loader would accept it."""
        return not self.missing

    def used(self, tier: str) -> int:
        """Bytes taken of a tier, scratch included."""
        return sum(row.get(tier, 0) for row in self.table.values())


def shares(needs: Needs, hardware: Hardware, options: PlanOptions, device: str) -> Shares:
    """Lay out a model with its backbone on `device`, "cpu" or "cuda"."""
    base = "vram" if device == "cuda" else "ram"
    table = {
        name: {"ram" if name in ON_HOST else base: nbytes}
        for name, nbytes in needs.backbone.items()
    }
    table["kv_cache"] = {base: options.context * options.users * needs.kv_token_bytes}
    must = {tier: sum(row.get(tier, 0) for row in table.values()) for tier in ("ram", "vram")}
    room = {"ram": free_ram(hardware), "vram": _device_room(hardware, device)}
    slots = expert_slots(needs, room["ram"] - must["ram"], options, device)
    missing = _missing(needs, must, room, slots, device)
    table |= _experts(needs, slots)
    wanted = HOST_SCRATCH
    if device == "cpu" and "vision" in needs.backbone:
        wanted += TOWER_SCRATCH
    left = max(0, room["ram"] - sum(row.get("ram", 0) for row in table.values()))
    table["scratch"] = {"ram": min(wanted, left)}
    if device == "cuda":
        table["scratch"]["vram"] = DEVICE_SCRATCH
    return Shares(device, table, slots, room, missing, wanted - table["scratch"]["ram"])


def free_ram(hardware: Hardware) -> int:
    """Bytes of RAM that a process may take on this machine."""
    ram = hardware.ram
    free = ram.free_bytes
    if free is None:
        free = max(0, (ram.total_bytes or 0) - SYSTEM)
    return free if ram.limit_bytes is None else min(free, ram.limit_bytes)


def expert_slots(needs: Needs, free: int, options: PlanOptions, device: str) -> Capacity:
    """Slots of the experts, with `free` bytes of RAM beside everything else.

    On a CUDA device no expert runs yet, so that its budget pays for nothing; without one a
    `vram_budget` is a second share of RAM (docs/limits.md).
    """
    size, records, ram = needs.slot_bytes, needs.records, options.ram_budget
    if not records:
        return Capacity(0, 0, 0, 0, from_file=False)
    vram = 0 if device == "cuda" else options.vram_budget or 0
    return within(free, records, size, vram, ram)


def _missing(
    needs: Needs, must: dict[str, int], room: dict[str, int], slots: Capacity, device: str
) -> dict[str, int]:
    """What the loader refuses for, in the order in which it looks."""
    missing = {}
    on_device = must["vram"] + DEVICE_SCRATCH if device == "cuda" else 0
    if on_device > room["vram"]:
        missing["vram"] = on_device - room["vram"]
    on_host = must["ram"] + (slots.ram + slots.device) * needs.slot_bytes
    if on_host > room["ram"]:
        missing["ram"] = on_host - room["ram"]
    return missing


def _experts(needs: Needs, slots: Capacity) -> dict[str, dict[str, int]]:
    """Where the records are; working slots are RAM that holds none of them for long."""
    if not slots.records:
        return {}
    size = needs.record_bytes
    resident = min(slots.resident, slots.records - slots.device)
    rest = slots.records - slots.device - resident
    rows = {"ram": (slots.device + resident) * size, "nvme": rest * size}
    working = slots.ram * needs.slot_bytes - resident * size
    working += slots.device * (needs.slot_bytes - size)
    return {"routed": rows, "working_slots": {"ram": working}}


def _device_room(hardware: Hardware, device: str) -> int:
    gpu = best_gpu(hardware)
    return free_vram(gpu) if gpu and device == "cuda" else 0
