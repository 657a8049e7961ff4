"""Random choices of a generator, and the line between training and held-out conversations.

A conversation has a key: what makes its answer, e.g. "47+85". A hash deals the keys to the splits,
so what is asked in evaluation has never been answered in training, whatever the seed.
"""

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")
Split = Literal["train", "test"]
ONE_IN = 10  # keys that are held out


def is_held_out(key: str) -> bool:
    """Tell to which split a key belongs."""
    return zlib.crc32(key.encode()) % ONE_IN == 0


@dataclass(frozen=True, slots=True)
class Draw:
    """One stream of choices for one split."""

    random: random.Random
    split: Split = "train"

    @classmethod
    def of(cls, seed: str, split: Split = "train") -> "Draw":
        """Begin a stream; the splits never share one."""
        return cls(random.Random(f"{split}/{seed}"), split)

    def pick(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self.number(0, len(options) - 1)]

    def some(self, options: Sequence[T], count: int) -> list[T]:
        """Several different ones, in random order."""
        left = list(options)
        return [left.pop(self.number(0, len(left) - 1)) for _ in range(count)]

    def many(self, options: Sequence[T], least: int, most: int) -> list[T]:
        """Several of them, the same one more than once if it comes so."""
        return [self.pick(options) for _ in range(self.number(least, most))]

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + int(self.random.random() * (high - low + 1))

    def chance(self, odds: float) -> bool:
        """True with these odds."""
        return self.random.random() < odds

    def mine(self, make: Callable[[], T], key: Callable[[T], str]) -> T:
        """Draw until something belongs to this split."""
        while True:
            made = make()
            if is_held_out(key(made)) == (self.split == "test"):
                return made
