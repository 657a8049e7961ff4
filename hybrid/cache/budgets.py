"""How many slots each layer gets.

Three quarters of an equal share are every layer's own: a budget over all layers alike, emptied by
whichever layer is busy, returns nothing once it is smaller than a token's working set. The rest
goes where counts promise the next hit, up to one and a half equal shares. On a trace of Kimi-Linear
(first half counted, second half played) that is worth 0.0 to 0.6 % of the picks on the device and
nothing in RAM; it is for models whose layers differ more.
"""

import numpy as np
from numpy.typing import NDArray

FLOOR = 0.75  # of an equal share
CEILING = 1.5


def share(slots: int, counts: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """Slots by layer, for `counts` [layers, experts] of picks; none over `limit`. [layers]

    The sum is `slots`, or what all layers can take. Layers of equal worth get equal shares, the
    first ones the remainder.
    """
    layers, experts = counts.shape
    limit = min(limit, experts)
    slots = max(0, min(slots, layers * limit))
    equal = slots / max(1, layers)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-30)  # of a layer's picks
    worth = -np.sort(-shares, axis=1)[:, :limit]  # [layers, limit]: of a layer's next slot
    rank = np.broadcast_to(np.arange(limit), worth.shape)
    beyond = rank >= max(1, np.ceil(CEILING * equal))
    group = np.where(rank < np.floor(FLOOR * equal), 0, np.where(beyond, 2, 1))
    layer = np.broadcast_to(np.arange(layers)[:, None], worth.shape)
    wanted = np.where(group == 1, worth, 0.0)
    order = np.lexsort((layer.ravel(), rank.ravel(), -wanted.ravel(), group.ravel()))
    return np.bincount(layer.ravel()[order[:slots]], minlength=layers).astype(np.int64)
