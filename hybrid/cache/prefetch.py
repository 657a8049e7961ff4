"""Reads that nobody has asked for yet: what the next layer will probably want from the file.

The next layer's router, asked of this layer's hidden state, is nearly right. A right guess hides a
read, a wrong one stands in the way of the next; so guesses are made only while the disk has nothing
else to do, and for layers that were mostly guessed rightly.
"""

from collections.abc import Callable
from time import perf_counter

from hybrid.cache.counters import Counters
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.layer_map import Ids, LayerMap
from hybrid.cache.reader import Reader

TRUSTED = 0.6  # part of guesses that must be right
TRIAL = 61  # of so many chances one is taken in any case; prime, so that layers take turns
Ahead = Callable[[], Ids]  # what the next layer's router says of this layer's hidden state


class Prefetch:
    """Orders reads ahead. For the thread that runs the model."""

    def __init__(self, reader: Reader, slots: HostSlots, counters: Counters) -> None:
        self._reader, self._slots, self._counters = reader, slots, counters
        self._chances = 0
        self._asking_s = 0.0  # what asking the next layer's router took

    def order(self, after: LayerMap, ahead: Ahead) -> None:
        """Read some of what the layer `after` will probably want, if that is likely to pay."""
        if self._reader.busy or not self._pays(after):
            return
        began = perf_counter()
        experts = ahead().ravel()  # of one token: the surest first
        self._asking_s = perf_counter() - began
        absent = experts[(after.ram[experts] < 0) & (after.vram[experts] < 0)]
        most = min(max(1, round(after.misses)), self._slots.free // 2)
        for expert in dict.fromkeys(int(e) for e in absent if e not in after.reading):
            if most <= 0:
                break
            most -= 1
            slot = self._slots.take()
            assert slot is not None
            after.reading[expert] = self._reader.order(after.layer, expert, slot, ahead=True)
            self._counters.predicted[after.layer] += 1

    def _pays(self, after: LayerMap) -> bool:
        """Whether a guess is likely to save more than it costs.

        A layer that was mostly guessed wrongly is left alone, but for a trial now and then.
        """
        self._chances += 1
        if after.foresight < TRUSTED and self._chances % TRIAL:
            return False
        return self._asking_s < 0.5 * min(1.0, after.misses) * self._reader.record_s
