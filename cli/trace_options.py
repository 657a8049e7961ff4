"""What `trace replay` takes for --slots and --policy."""

import math
from dataclasses import dataclass
from typing import Any

import click

BOUND = "belady"
NAMES = ("decayed-lfu", "lru", "lfu", "static", BOUND)
MOST = 1 << 14  # slots of a layer
MOST_CAPACITIES = 64


@dataclass(frozen=True, slots=True)
class Capacity:
    """Slots of a layer, or a share of its experts."""

    number: float
    of_all: bool = False

    def slots(self, experts: int) -> int:
        """A share is rounded up: 11 % of 256 are 29."""
        return math.ceil(self.number / 100 * experts) if self.of_all else int(self.number)


class _Slots(click.ParamType[list[Capacity]]):
    name = "N|N%,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Capacity]:
        """Capacities in the order given."""
        if isinstance(value, list):
            return value
        words = str(value).split(",")
        if len(words) > MOST_CAPACITIES:
            self.fail(f"{len(words)} capacities; at most {MOST_CAPACITIES}", param, ctx)
        return [self._one(word.strip(), param, ctx) for word in words]

    def _one(self, word: str, param: click.Parameter | None, ctx: click.Context | None) -> Capacity:
        of_all = word.endswith("%")
        try:
            number = float(word[:-1]) if of_all else float(int(word))
        except ValueError:
            number = math.nan
        if not 0 <= number <= (100 if of_all else MOST):
            hint = "0 to 100 %" if of_all else f"a whole number to {MOST}, or a share as 11%"
            self.fail(f"{word!r} must be {hint}", param, ctx)
        return Capacity(number, of_all)


class _Policies(click.ParamType[list[str]]):
    name = "NAMES"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[str]:
        """Names in the order given; all of them for "all"."""
        if isinstance(value, list):
            return value
        if value == "all":
            return list(NAMES)
        names = [name.strip() for name in str(value).split(",")]
        for name in names:
            if name not in NAMES:
                self.fail(f"{name!r} is no policy; choose of {', '.join(NAMES)}", param, ctx)
        return names


SLOTS = _Slots()
POLICIES = _Policies()
