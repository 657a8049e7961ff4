"""How many records each tier holds: pure arithmetic on bytes.

    device   as many as `vram_budget` pays for
    RAM      the rest, if there is room for it; then no file is needed once all is loaded
    file     else: every record can be read again, and some slots of RAM are kept free to read into

A few working slots are not negotiable: without one to read into, or one to swap through, nothing
could move. They are added where a budget does not pay for them.
"""

from dataclasses import dataclass

FEWEST_SLOTS = 4  # of RAM, once records come from a file: less than this cannot overlap anything
SWAP_SLOTS = 4  # of RAM, for records on their way to a device or from it
RESERVE = 1 << 30  # bytes of RAM left to others where experts take all that there is
LANDING = 16  # slots kept free to read into: the misses of one token, and the next layer's
LANDING_SHARE = 8  # but no more than this part of RAM


@dataclass(frozen=True, slots=True)
class Capacity:
    """Slots by tier. All `records` have a place in memory unless `from_file`."""

    records: int
    device: int
    ram: int  # working slots included
    landing: int  # of `ram`, kept free
    from_file: bool

    @property
    def resident(self) -> int:
        """Records that RAM keeps from one step to the next."""
        return self.ram - self.landing


def capacity(records: int, slot_bytes: int, vram: int, ram: int) -> Capacity:
    """Share out `records` of `slot_bytes` each over budgets in bytes."""
    device = min(records, vram // slot_bytes)
    rest = records - device
    slots = ram // slot_bytes
    if slots >= rest:
        spare = SWAP_SLOTS if device else 0
        return Capacity(records, device, rest + spare, spare, from_file=False)
    slots = max(slots, FEWEST_SLOTS)
    landing = min(LANDING, max(FEWEST_SLOTS, slots // LANDING_SHARE))
    return Capacity(records, device, slots, landing, from_file=True)


def within(free: int, records: int, slot_bytes: int, vram: int, ram: int | None) -> Capacity:
    """The capacity that `free` bytes of RAM allow, of which a device made of RAM takes `vram`.

    `ram` None: all that is left, but for a reserve where it is not enough. What was asked for may
    come to more than is free; that is for the caller to refuse.
    """
    wanted = records * slot_bytes
    vram = min(vram, wanted)
    if ram is None:
        everything = capacity(records, slot_bytes, vram, wanted)
        ram = free - vram
        if (everything.ram + everything.device) * slot_bytes > free:
            ram = min(ram, wanted - vram - 1) - RESERVE  # some stay in the file
    return capacity(records, slot_bytes, vram, max(0, ram))
