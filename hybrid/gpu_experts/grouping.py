"""Pairs (token, slot of the router) sorted by the record they want, and cut into tiles.

    slot ids     [5, -1], [2, 5]                pairs 0 ... 3, pair = token * k + j
    order        2, 0, 3 | 1                    sorted by slot, -1 last
    tiles of 16  slot 2: place 0, 1 pair        slot 5: place 1, 2 pairs

How many pairs want which slot is known on the device alone. Nothing here asks it: the tables are as
long as they can become, and `tiles` says, in device memory, how much of them counts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles of at most `pairs` pairs that want one slot; only the first `count[0]` are valid."""

    pairs: int
    order: Tensor  # int64 [T * k]: which pair is at a place
    slot: Tensor  # int32 [most]
    first: Tensor  # int32 [most]: the place of the tile's first pair
    size: Tensor  # int32 [most]: its number of pairs
    count: Tensor  # int32 [1]

    @property
    def most(self) -> int:
        """The number of tiles if every slot has one that is not full."""
        return len(self.slot)


def sorted_pairs(slot_ids: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """(slot of each place, `slots` for none; pair at each place), int64 [T * k] both."""
    flat = slot_ids.reshape(-1).to(torch.int64)
    wanted = torch.where(flat < 0, slots, flat)
    return torch.sort(wanted, stable=True)


def tiles(slot_ids: Tensor, slots: int, pairs: int) -> Tiles:
    """Cut the pairs of slot_ids int32 [T, k] (-1: none) into tiles; ids are below `slots`."""
    wanted, order = sorted_pairs(slot_ids, slots)
    counts = torch.zeros(slots + 1, dtype=torch.int64, device=order.device)
    counts.scatter_add_(0, wanted, torch.ones_like(wanted))
    ends = counts.cumsum(0)
    needed = (counts.narrow(0, 0, slots) + (pairs - 1)) // pairs  # tiles of each slot
    last = needed.cumsum(0)  # the tile after a slot's last
    most = len(order) // pairs + min(slots, len(order))
    index = torch.arange(most, device=order.device)
    slot = torch.searchsorted(last, index, right=True).clamp(max=slots - 1)
    before = (index - last.index_select(0, slot) + needed.index_select(0, slot)) * pairs
    size = counts.index_select(0, slot)
    first = ends.index_select(0, slot) - size + before
    size = (size - before).clamp(max=pairs)
    count = last.narrow(0, slots - 1, 1)
    table = (t.to(torch.int32) for t in (slot, first, size, count))
    return Tiles(pairs, order, *table)
