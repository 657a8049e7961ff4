"""One layer's experts for one block of tokens, between `start` and `finish` of the tiers."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hybrid.backbone import Routing
from hybrid.cache.layer_map import Ids, LayerMap, Mask
from hybrid.cache.policy import Swap
from hybrid.cache.reader import Read

F32 = NDArray[np.float32]


@dataclass(slots=True, eq=False)
class Step:
    """What is known of it, and what is still to be done."""

    own: LayerMap
    routing: Routing
    prompt: bool
    outputs: F32 | None = None  # [tokens * k, hidden]; None: all is in RAM, one call will do
    picked: Ids | None = None  # the experts that occur, if not
    stays: Mask | None = None  # [experts], whom RAM keeps afterwards
    missing: list[int] = field(default_factory=list)  # not ordered yet: no slot to read into
    waiting: dict[int, Read] = field(default_factory=dict)
    on_device: bool = False  # the device computes some
    taken: list[int] = field(default_factory=list)  # the device reads these from RAM until it joins
    held: set[int] = field(default_factory=set)  # those of them that nothing else pins
    swaps: tuple[Swap, ...] = ()  # to begin once all is computed

    @property
    def settled(self) -> bool:
        """Whether nothing is to come from the file any more."""
        return not (self.missing or self.waiting)


def only(ids: Ids, here: Mask) -> Ids:
    """The ids that the mask [experts] allows, -1 in the place of others."""
    return np.where((ids >= 0) & here[ids], ids, -1).astype(np.int32, copy=False)


def distinct(ids: Ids) -> Ids:
    """The experts that occur, ascending. Those of one token differ."""
    if len(ids) == 1 and ids.min(initial=0) >= 0:
        return np.sort(ids[0])
    return np.bincount(ids[ids >= 0]).nonzero()[0].astype(np.int32)
