"""The bound that no policy can beat: who is needed again soonest stays.

Belady's rule with bypass: after each step, out of those present and those just picked, the `slots`
whose next pick is nearest are kept. It knows the future, and what it copies costs it nothing.
"""

import numpy as np
from numpy.typing import NDArray


def next_picks(picks: NDArray[np.int32], experts: int) -> NDArray[np.int64]:
    """For each pick of one layer the next token that picks the same expert. [tokens, k]

    `picks` is [tokens, k], -1: none. Whom nobody picks again is due at `tokens`, after the last.
    """
    following = np.empty(picks.shape, np.int64)
    due = np.full(experts + 1, len(picks), np.int64)  # the last cell: picks of -1
    for token in range(len(picks) - 1, -1, -1):
        following[token] = due[picks[token]]
        due[picks[token]] = token
    return following


def keep_soonest(
    due: NDArray[np.int64], present: NDArray[np.bool_], room: int
) -> NDArray[np.bool_]:
    """Those of the present [experts] that stay where only `room` can: the soonest `due`."""
    order = np.argsort(np.where(present, due, np.iinfo(np.int64).max), kind="stable")
    kept = np.zeros(len(present), np.bool_)
    kept[order[: max(0, room)]] = True
    return kept & present
