"""Slots over several cards: how many each gets, and which they are.

    slot      0  1  2  3  4  5  6  7  8       as the maps and promotions count them
    card      0  1  0  0  1  0  0  1  0       card 0 has twice the memory of card 1
    local     0  0  1  2  1  3  4  2  5

A layer's slots are neighbours, for they are handed out layer by layer. Dealt like cards, each
layer's experts are spread over all cards, and these compute at the same time.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]


def shares(slots: int, memory: Sequence[int]) -> list[int]:
    """How many of `slots` each card gets, in proportion to its memory; the first takes the rest."""
    total = sum(memory)
    if not total:
        return [slots, *[0] * (len(memory) - 1)]
    counts = [slots * each // total for each in memory]
    counts[0] += slots - sum(counts)
    return counts


def deal(counts: Sequence[int]) -> tuple[Ids, Ids]:
    """The card of each slot, and its number there: [sum of counts] each."""
    card = np.concatenate([np.full(count, at, np.int32) for at, count in enumerate(counts)])
    local = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    part = (local + 0.5) / np.asarray(counts)[card]  # of its card's slots, how many come before
    order = np.lexsort((card, part))
    return card[order], local[order]
