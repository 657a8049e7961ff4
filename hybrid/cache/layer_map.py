"""Where one layer's experts are, and what its two policies remember.

    vram[e] >= 0   in that slot of the device          ram[e] >= 0   in that slot of RAM
    reading[e]     on its way from the file            neither       in the file alone

A record is in at most one of the two memories. Only the thread that runs the model changes a map,
and only outside the layer's own computation, so nobody needs a lock.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hybrid.cache.counters import FILE, RAM, VRAM
from hybrid.cache.policy import Memory, Policy
from hybrid.cache.reader import Read

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]
FADES = 0.9  # what a running mean keeps at each step


@dataclass(slots=True, eq=False)
class LayerMap:
    """One layer. `ram` and `vram` are read by compiled code at their addresses: never replaced."""

    layer: int
    experts: int
    policy: Policy
    ram: Ids = field(init=False)  # [experts]
    vram: Ids = field(init=False)  # [experts]
    ram_slots: int = 0  # records that RAM keeps for this layer
    vram_slots: int = 0
    ram_memory: Memory = field(init=False)
    vram_memory: Memory = field(init=False)
    reading: dict[int, Read] = field(default_factory=dict)
    pinned: set[int] = field(default_factory=set)  # being copied between the memories
    misses: float = 0.0  # experts a step that were in no memory, a running mean
    foresight: float = 1.0  # part of the records read ahead that were then wanted, a running mean

    def __post_init__(self) -> None:
        self.ram = np.full(self.experts, -1, np.int32)
        self.vram = np.full(self.experts, -1, np.int32)
        self.ram_memory = self.policy.start(self.experts)
        self.vram_memory = self.policy.start(self.experts)

    def seed(self, scores: NDArray[np.float64]) -> None:
        """Begin with what an earlier run learnt. [experts]"""
        self.ram_memory = self.policy.seeded(self.ram_memory, scores)
        self.vram_memory = self.policy.seeded(self.vram_memory, scores)

    def observe(self, ids: Ids) -> None:
        """Note what the router chose, [tokens, k]."""
        if self.ram_slots:
            slots = self.ram_slots + self.vram_slots
            self.ram_memory = self.policy.observe(self.ram_memory, ids, slots)
        if self.vram_slots:
            self.vram_memory = self.policy.observe(self.vram_memory, ids, self.vram_slots)

    def stays(self, picked: Ids) -> Mask:
        """Which experts RAM keeps after this step, if all of `picked` pass through it. [experts]"""
        present = self.ram >= 0
        present[picked] = True
        present &= self.vram < 0
        kept = self.policy.keep(self.ram_memory, present, self.ram_slots)
        kept[list(self.pinned)] = True
        return kept

    def worst(self, mask: Mask) -> int | None:
        """The expert least worth keeping among those in RAM that the mask allows."""
        candidates = mask & (self.ram >= 0)
        candidates[list(self.pinned)] = False
        if not candidates.any():
            return None
        rank = np.where(candidates, self.policy.rank(self.ram_memory), np.inf)
        return int(rank.argmin())

    def tiers(self) -> NDArray[np.int64]:
        """Where each expert is: VRAM, RAM or FILE. [experts]"""
        return _tiers(self.vram, self.ram)

    def tiers_of(self, experts: Ids) -> NDArray[np.int64]:
        """Where some of them are."""
        return _tiers(self.vram[experts], self.ram[experts])

    def worth(self) -> NDArray[np.float64]:
        """What the next run should know. [experts]"""
        return (self.vram_memory if self.vram_slots else self.ram_memory).scores

    def mend(self) -> None:
        """After an interrupt, once nobody reads or copies: what the maps say is all that is."""
        self.reading.clear()
        self.pinned.clear()
        self.ram[self.vram >= 0] = -1  # a swap was about to say so

    def missed(self, count: int) -> None:
        """Note how many experts of a step were in no memory."""
        self.misses = FADES * self.misses + (1 - FADES) * count

    def foresaw(self, *, right: bool) -> None:
        """Note whether a record that was read ahead was wanted."""
        self.foresight = FADES * self.foresight + (1 - FADES) * right


def _tiers(vram: Ids, ram: Ids) -> NDArray[np.int64]:
    return np.where(vram >= 0, VRAM, np.where(ram >= 0, RAM, FILE))
