"""Who gets which bytes: the loader's own arithmetic, on a machine that need not be this one.

    backbone, vision tower, KV cache   the first card if there is one, else RAM; must fit
    routed experts                     slots of all cards for what is free (cache/card_room.py),
                                       slots of RAM for what is free there (cache/capacity.py),
                                       the rest is read from the file when it is asked for

Scratch is not reserved by the loader: it comes out of what is left, and a plan says if that is
too little. So is one GiB (the reserve) that experts leave to others where they take all there is.
"""

from dataclasses import dataclass

from hybrid.cache.capacity import Capacity, within
from hybrid.cache.card_room import CardRoom, card_room
from hybrid.cache.dealing import shares as deal_out
from hybrid.hardware import Hardware
from hybrid.placement.cards import Together, free_vram, in_order, together
from hybrid.placement.needs import ON_HOST, PASS_TOKENS, Needs
from hybrid.placement.options import PlanOptions

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
    cards: tuple[dict[str, int], ...]  # of each card: component -> bytes; the first comes first
    together: Together | None  # the cards that compute experts; None: the CPU computes them all

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
    free = [free_vram(gpu) for gpu in in_order(hardware)] if device == "cuda" else []
    room = {"ram": free_ram(hardware), "vram": free[0] if free else 0}
    cards = _card_room(needs, options, free, must["vram"])
    slots = expert_slots(needs, room["ram"] - must["ram"], options, device, cards.slots)
    missing = _missing(needs, must, room, slots, device)
    first = {name: row["vram"] for name, row in table.items() if row.get("vram")}
    table |= _experts(needs, slots, cards, device)
    wanted = HOST_SCRATCH
    if device == "cpu" and "vision" in needs.backbone:
        wanted += TOWER_SCRATCH
    left = max(0, room["ram"] - sum(row.get("ram", 0) for row in table.values()))
    table["scratch"] = {"ram": min(wanted, left)}
    each: tuple[dict[str, int], ...] = ()
    if device == "cuda":
        first["scratch"] = table["scratch"]["vram"] = DEVICE_SCRATCH
        each = _by_card(needs, slots, cards, first, len(free))
    part = tuple(in_order(hardware)[card] for card in cards.cards)
    return Shares(
        device=device,
        table=table,
        slots=slots,
        room=room,
        missing=missing,
        scratch_short=wanted - table["scratch"]["ram"],
        cards=each,
        together=together(part) if part else None,
    )


def free_ram(hardware: Hardware) -> int:
    """Bytes of RAM that a process may take on this machine."""
    ram = hardware.ram
    free = ram.free_bytes
    if free is None:
        free = max(0, (ram.total_bytes or 0) - SYSTEM)
    return free if ram.limit_bytes is None else min(free, ram.limit_bytes)


def expert_slots(
    needs: Needs, free: int, options: PlanOptions, device: str, on_cards: int = 0
) -> Capacity:
    """Slots of the experts, with `free` bytes of RAM beside everything else.

    `on_cards`: records that cards hold. Without a card a `vram_budget` is a second share of RAM
    (docs/limits.md).
    """
    size, records, ram = needs.slot_bytes, needs.records, options.ram_budget
    if not records:
        return Capacity(0, 0, 0, 0, from_file=False)
    if device == "cuda":  # as if the cards' slots were RAM that came on top
        return within(free + on_cards * size, records, size, on_cards * size, ram)
    return within(free, records, size, options.vram_budget or 0, ram)


def _card_room(needs: Needs, options: PlanOptions, free: list[int], must: int) -> CardRoom:
    """What each card has for experts; nothing on a machine that computes on its CPU."""
    if not free:
        return CardRoom((), (), 0, 0)
    return card_room(
        [free[0] - must - DEVICE_SCRATCH, *free[1:]],
        record_bytes=needs.record_bytes,
        records=needs.records,
        hidden=needs.hidden,
        per_token=needs.per_token,
        pass_tokens=PASS_TOKENS,
        budget=options.vram_budget,
    )


def _missing(
    needs: Needs, must: dict[str, int], room: dict[str, int], slots: Capacity, device: str
) -> dict[str, int]:
    """What the loader refuses for, in the order in which it looks."""
    missing = {}
    on_device = must["vram"] + DEVICE_SCRATCH if device == "cuda" else 0
    if on_device > room["vram"]:
        missing["vram"] = on_device - room["vram"]
    of_host = slots.ram if device == "cuda" else slots.ram + slots.device
    on_host = must["ram"] + of_host * needs.slot_bytes
    if on_host > room["ram"]:
        missing["ram"] = on_host - room["ram"]
    return missing


def _experts(
    needs: Needs, slots: Capacity, cards: CardRoom, device: str
) -> dict[str, dict[str, int]]:
    """Where the records are; working slots are memory that holds none of them for long."""
    if not slots.records:
        return {}
    size = needs.record_bytes
    resident = min(slots.resident, slots.records - slots.device)
    rest = slots.records - slots.device - resident
    working = slots.ram * needs.slot_bytes - resident * size
    if device == "cuda":
        rows = {"vram": slots.device * size, "ram": resident * size, "nvme": rest * size}
        return {
            "routed": rows,
            "working_slots": {"vram": cards.working * len(cards.cards), "ram": working},
        }
    working += slots.device * (needs.slot_bytes - size)
    return {
        "routed": {"ram": (slots.device + resident) * size, "nvme": rest * size},
        "working_slots": {"ram": working},
    }


def _by_card(
    needs: Needs, slots: Capacity, cards: CardRoom, first: dict[str, int], count: int
) -> tuple[dict[str, int], ...]:
    """Bytes of each card by component; slots are dealt in proportion to what is free."""
    rows: list[dict[str, int]] = [dict(first), *({} for _ in range(count - 1))]
    dealt_out = deal_out(slots.device, cards.memory) if cards.cards else []
    for card, dealt in zip(cards.cards, dealt_out, strict=True):
        rows[card] |= {"routed": dealt * needs.record_bytes, "working_slots": cards.working}
    return tuple(rows)
