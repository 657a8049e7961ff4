"""Which experts deserve the fast memory: pure functions of what the router has chosen so far.

    memory = policy.start(experts)                        one layer's history
    memory = policy.observe(memory, picks, slots)         after each step, or block of tokens
    policy.swaps(memory, resident, slots, picked)         device over RAM: a copy each, so bounded
    policy.keep(memory, present, room)                    RAM over a file: read anyway, so free

The runtime, the tests and the simulator (`simulate.py`) call exactly these. Nothing is changed in
place, nothing depends on time or chance, and equal worth goes to the lower expert id.

A pick is counted twice: in a long memory that fades as slowly as there are slots to fill, and in a
short one of a few tokens. Their weighted mean is what an expert is worth; a pick of this moment is
worth 1. The short memory weighs most, so what stays is what is wanted now, and the long one decides
between the others. A newcomer to the device must be ahead by `margin` such picks (hysteresis): more
than one, so nobody gets in who is picked once, and equals do not change places for ever. The
numbers were chosen by `bench/tune_policy.py`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_SWAPS = 16  # promotions that a block of prompt tokens may cause in one layer
_WEIGHED = 64  # tokens weighed at once: weights grow by 2^64 at most
_LARGEST = 2.0**200
_ALL = slice(-1)  # every expert, without the cell of nobody

Ids = list[int] | NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Memory:
    """What a policy remembers of one layer; a unit is what a pick of this moment adds.

    Instead of shrinking all counts at every token, the weight of new picks grows; powers of two are
    taken out of counts and unit now and then, which changes no ratio. The last cell of both is
    nobody's: there goes a pick of -1.
    """

    long: NDArray[np.float64]  # [experts + 1], in units of `long_unit`
    short: NDArray[np.float64]  # [experts + 1], in units of `short_unit`
    long_unit: float = 1.0
    short_unit: float = 1.0

    @property
    def scores(self) -> NDArray[np.float64]:
        """The long memory in picks of this moment: what a warm start saves. [experts]"""
        return self.long[:-1] / self.long_unit


@dataclass(frozen=True, slots=True)
class Swap:
    """A promotion: who comes, and who leaves for it; None: a slot was free."""

    incoming: int
    outgoing: int | None


@dataclass(frozen=True, slots=True)
class Policy:
    """Counts that fade, with hysteresis."""

    name: str
    span: float | None = None  # the long memory reaches back span * slots tokens; None: for ever
    recency: float = 0.0  # weight of the short memory, the long one's being 1
    short_decay: float = 0.7  # of the short memory, a token: half is gone after two
    margin: float = 0.0  # picks of this moment by which a newcomer must be ahead
    bound: int | None = 1  # promotions a layer and decode step; None: every newcomer

    @property
    def fixed(self) -> bool:
        """Whether nobody is ever replaced on the device: free slots are filled, and that is all."""
        return self.margin == math.inf

    def decay(self, slots: int) -> float:
        """What a pick is worth to the long memory one token later."""
        return 1.0 if self.span is None else 1 - 1 / max(2.0, self.span * slots)

    def start(self, experts: int) -> Memory:
        """The memory of a layer of which nothing is known."""
        return Memory(np.zeros(experts + 1), np.zeros(experts + 1))

    def seeded(self, memory: Memory, scores: NDArray[np.float64]) -> Memory:
        """A memory that begins with saved `scores` (finite, none negative). [experts]"""
        return Memory(np.append(scores, 0.0), np.zeros_like(memory.short))

    def observe(self, memory: Memory, picks: NDArray[np.int32], slots: int) -> Memory:
        """The memory after `picks` [tokens, k] (-1: none); a block counts as its tokens one by one.

        No token picks an expert twice. `slots` is the capacity of the layer in the tier that this
        memory is kept for.
        """
        chosen = picks.astype(np.intp)
        long, long_unit = _count(memory.long, memory.long_unit, chosen, 1 / self.decay(slots))
        if not self.recency:
            return Memory(long, memory.short, long_unit)
        short, short_unit = _count(memory.short, memory.short_unit, chosen, 1 / self.short_decay)
        return Memory(long, short, long_unit, short_unit)

    def rank(self, memory: Memory) -> NDArray[np.float64]:
        """What keeping each expert is worth, in picks of this moment. [experts]"""
        return _worth(memory, self.recency, _ALL) / ((1 + self.recency) * memory.long_unit)

    def swaps(
        self,
        memory: Memory,
        resident: NDArray[np.bool_],
        slots: int,
        picked: NDArray[np.int32],
        tokens: int = 1,
    ) -> tuple[Swap, ...]:
        """The promotions after a step: the best newcomers for the worst residents.

        After one token the newcomers are those in `picked` (-1: none), which are in RAM by then.
        After a block of `tokens` they are all outside; pass as `picked` what its last token chose,
        for a long block chooses nearly every expert. Nobody in `picked` is sent away.
        """
        inside, chosen = resident.tobytes(), picked.ravel().tolist()
        if tokens == 1:
            newcomers = sorted([e for e in chosen if e >= 0 and not inside[e]])
        else:
            newcomers = np.flatnonzero(~resident).tolist()
        most = slots if self.bound is None else self.bound * min(tokens, BLOCK_SWAPS)
        if not newcomers or most == 0:
            return ()
        gains = _worth(memory, self.recency, newcomers).tolist()
        free = slots - inside.count(1)
        margin = self.margin * (1 + self.recency) * memory.long_unit
        if free <= 0 and max(gains) <= margin:  # nobody inside is worth less than nothing
            return ()
        best = sorted(zip(gains, newcomers, strict=True), key=_gain, reverse=True)  # stable
        residents = resident.nonzero()[0]
        stay = _worth(memory, self.recency, residents)
        return _swaps(best[:most], stay, residents, free, chosen, margin)

    def keep(self, memory: Memory, present: NDArray[np.bool_], room: int) -> NDArray[np.bool_]:
        """Those of the present that stay where only `room` can: the best. [experts]"""
        kept = present.copy()
        excess = int(np.count_nonzero(present)) - max(0, room)
        if excess > 0:
            worth = np.where(present, _worth(memory, self.recency, _ALL), np.inf)
            for _ in range(excess):
                leaver = _last_minimum(worth)
                worth[leaver], kept[leaver] = np.inf, False
        return kept


@dataclass(frozen=True, slots=True)
class Lru(Policy):
    """The last picked are worth most; every miss is let in, whatever that copies.

    The long memory holds for each expert the number of the last token that picked it, and in
    `long_unit` the number of the last token of all.
    """

    bound: int | None = None

    def seeded(self, memory: Memory, scores: NDArray[np.float64]) -> Memory:
        """As if the experts had last been picked in the order of their scores. [experts]"""
        values, order = np.unique(scores, return_inverse=True)
        last = np.where(scores > 0, order + 1.0, 0.0)
        return Memory(np.append(last, 0.0), memory.short, float(len(values) + 1))

    def observe(self, memory: Memory, picks: NDArray[np.int32], slots: int) -> Memory:
        """The memory after `picks` [tokens, k] (-1: none)."""
        last = memory.long.copy()
        numbers = memory.long_unit + 1 + np.arange(len(picks))
        np.maximum.at(last, picks, numbers[:, None])
        return Memory(last, memory.short, memory.long_unit + len(picks))


def _count(
    counts: NDArray[np.float64], unit: float, picks: NDArray[np.intp], growth: float
) -> tuple[NDArray[np.float64], float]:
    """Counts and unit after `picks` [tokens, k], each token weighing `growth` times the last."""
    counts = counts.copy()
    if len(picks) == 1:  # a decode step: every microsecond counts
        unit *= growth
        counts[picks[0]] += unit
        return _rescaled(counts, unit)
    for first in range(0, len(picks), _WEIGHED):
        block = picks[first : first + _WEIGHED]
        units = np.full(len(block) + 1, growth)
        units[0] = unit
        np.multiply.accumulate(units, out=units)
        np.add.at(counts, block, units[1:, None])
        counts, unit = _rescaled(counts, float(units[-1]))
    return counts, unit


def _rescaled(counts: NDArray[np.float64], unit: float) -> tuple[NDArray[np.float64], float]:
    """Exact: both are divided by the same power of two."""
    return (counts / _LARGEST, unit / _LARGEST) if unit > _LARGEST else (counts, unit)


def _worth(memory: Memory, recency: float, ids: Ids | slice) -> NDArray[np.float64]:
    """Both memories of some experts, the short one weighted, in units of the long one."""
    if not recency:
        return memory.long[ids]
    return memory.long[ids] + memory.short[ids] * (recency * memory.long_unit / memory.short_unit)


def _gain(newcomer: tuple[float, int]) -> float:
    return newcomer[0]


def _swaps(
    newcomers: list[tuple[float, int]],
    stay: NDArray[np.float64],
    residents: NDArray[np.intp],
    free: int,
    chosen: list[int],
    margin: float,
) -> tuple[Swap, ...]:
    """Newcomers, best first, into free slots, then for those whose `stay` is worth least."""
    swaps: list[Swap] = []
    for gain, incoming in newcomers:
        if len(swaps) < free:
            if gain <= 0:  # never picked
                break
            swaps.append(Swap(incoming, None))
            continue
        leaver = _leaver(stay, residents, chosen)
        if leaver is None or gain <= stay.item(leaver) + margin:
            break
        stay[leaver] = np.inf
        swaps.append(Swap(incoming, residents.item(leaver)))
    return tuple(swaps)


def _leaver(
    stay: NDArray[np.float64], residents: NDArray[np.intp], chosen: list[int]
) -> int | None:
    """The index of the resident that is worth least to `stay` and is not among the chosen."""
    while len(stay):
        leaver = _last_minimum(stay)
        if stay.item(leaver) == np.inf:
            break
        if residents.item(leaver) not in chosen:
            return leaver
        stay[leaver] = np.inf
    return None


def _last_minimum(worth: NDArray[np.float64]) -> int:
    """Where the least is; among equals the highest id, for the lower is to stay."""
    return len(worth) - 1 - int(worth[::-1].argmin())


POLICIES = {
    policy.name: policy
    for policy in (
        Policy("decayed-lfu", span=16.0, recency=16.0, margin=1.5),
        Lru("lru"),
        Policy("lfu"),
        Policy("static", margin=math.inf),
    )
}
DEFAULT = POLICIES["decayed-lfu"]
