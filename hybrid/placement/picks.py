"""How many tokens of a pass ask for each expert of a layer, if they ask at random.

A token asks for an expert with probability k / E, so that the number of those who ask for one is
binomial. The experts of a layer, sorted, are taken to be its quantiles, scaled to the true sum.
Real routing has favourites, which makes the busy busier and streaming them worth more: this is the
case that is worth least.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, modulo 1, fill the unit evenly


@lru_cache(maxsize=64)
def picks(tokens: int, per_token: int, experts: int) -> NDArray[np.float64]:
    """Tokens that ask for each expert, the busiest first, tokens * per_token in all. [experts]"""
    share = per_token / experts
    if share >= 1:
        return np.full(experts, float(tokens))
    count = np.arange(tokens + 1)
    factorial = np.cumsum(np.log(np.maximum(count, 1)))  # [count]: log count!
    ways = factorial[-1] - factorial - factorial[::-1]
    chance = np.exp(ways + count * math.log(share) + count[::-1] * math.log1p(-share))
    below = np.cumsum(chance) / chance.sum()  # [count]: that so many or fewer ask
    quantiles = np.searchsorted(below, (np.arange(experts) + 0.5) / experts)[::-1]
    total = max(1, int(quantiles.sum()))
    found = np.asarray(quantiles * (tokens * per_token / total), np.float64)
    found.flags.writeable = False
    return found


def lying(experts: int, on_card: float, in_file: float) -> tuple[Mask, Mask]:
    """Which experts lie on the cards and which in the file alone, for shares of them. [experts]

    Both are spread evenly over busy and rare ones, as popularity places nobody at random; who has a
    place keeps it when there is more room.
    """
    rank = np.argsort(np.argsort(np.arange(experts) * GOLDEN % 1.0))
    return rank < round(on_card * experts), rank >= experts - round(in_file * experts)
