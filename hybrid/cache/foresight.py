"""Which experts a layer of a prompt will stream again: those that it streamed in the last pass.

Whom a layer needs is known only once its router has spoken, but passes of one prompt resemble each
other. Pure data and functions; streaming.py uploads what they say.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]
KEEPS = 0.8  # of the running mean of right guesses, at each pass
TRUSTED = 0.5  # part of the guesses that must be right: below, the link is left alone
TRIAL = 13  # of so many chances one is taken in any case; prime, so that layers take turns


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """What a layer did in the last pass."""

    streamed: Ids  # busiest first
    trust: float = 1.0  # part of what was guessed that was then wanted, a running mean


def guess(memory: Memory | None, may: Mask, most: int, chance: int) -> Ids:
    """Whom to upload before the router speaks, the surest first: at most `most` of those who `may`.

    `may` [experts]; `chance` counts how often anybody asked.
    """
    if memory is None or (memory.trust < TRUSTED and chance % TRIAL):
        return np.empty(0, np.int32)
    return memory.streamed[may[memory.streamed]][: max(0, most)]


def learnt(memory: Memory | None, streamed: Ids, guessed: Ids, wanted: Mask) -> Memory:
    """The memory after a pass that streamed these and had guessed those; `wanted` [experts]."""
    trust = 1.0 if memory is None else memory.trust
    if len(guessed):
        trust = KEEPS * trust + (1 - KEEPS) * float(wanted[guessed].mean())
    return Memory(streamed, trust)
