"""What the tiers did: hits, bytes, waits and predictions, by layer and tier."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

VRAM, RAM, FILE = range(3)
TIERS = ("vram", "ram", "nvme")


@dataclass(slots=True)
class Counters:
    """Sums since the model was loaded. A use is one expert of one layer in one block of tokens."""

    layers: int
    record_bytes: int
    picks: NDArray[np.int64] = field(init=False)  # [tiers], (token, expert) pairs
    uses: NDArray[np.int64] = field(init=False)  # [layers, tiers]
    stalled_s: NDArray[np.float64] = field(init=False)  # [layers], waiting for the file alone
    predicted: NDArray[np.int64] = field(init=False)  # [layers], read ahead
    foreseen: NDArray[np.int64] = field(init=False)  # [layers], of these the router then chose
    compute_s: float = 0.0  # in the kernels of the CPU

    def __post_init__(self) -> None:
        self.picks = np.zeros(len(TIERS), np.int64)
        self.uses = np.zeros((self.layers, len(TIERS)), np.int64)
        self.stalled_s = np.zeros(self.layers)
        self.predicted = np.zeros(self.layers, np.int64)
        self.foreseen = np.zeros(self.layers, np.int64)

    def count_in_ram(self, layer: int, picks: int, uses: int) -> None:
        """A step of which everything was in RAM."""
        self.picks[RAM] += picks
        self.uses[layer, RAM] += uses

    def count(self, layer: int, tiers: NDArray[np.int64], times: NDArray[np.int64] | None) -> None:
        """A step: the tier of each expert used, and by how many tokens; None: by one each."""
        uses = np.bincount(tiers, minlength=len(TIERS))
        self.uses[layer] += uses
        if times is None:
            self.picks += uses
        else:
            np.add.at(self.picks, tiers, times)

    def by_tier(self) -> dict[str, int]:
        """Uses of all layers together."""
        return dict(zip(TIERS, map(int, self.uses.sum(axis=0)), strict=True))

    def tier(self, tier: int) -> dict[str, Any]:
        """Uses and bytes of one tier."""
        uses = int(self.uses[:, tier].sum())
        total = int(self.uses.sum())
        return {
            "expert_picks": int(self.picks[tier]),
            "expert_reads": uses,
            "share": round(uses / total, 4) if total else 0.0,
            "bytes": uses * self.record_bytes,
        }

    def by_layer(self) -> list[dict[str, Any]]:
        """One row for each layer that has experts and was used."""
        return [
            {
                "layer": layer,
                **dict(zip(TIERS, map(int, self.uses[layer]), strict=True)),
                "stalled_s": round(float(self.stalled_s[layer]), 6),
                "predicted": int(self.predicted[layer]),
                "foreseen": int(self.foreseen[layer]),
            }
            for layer in range(self.layers)
            if self.uses[layer].any()
        ]
