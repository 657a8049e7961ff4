"""Sort numbers or words by a sorting network: which two are looked at never depends on them.

working   58, 2, 82, 9 -> 58 and 2: 2 < 58. 82 and 9: 9 < 82. 2 and 9: 2 < 9.
          58 and 82: 58 < 82. 9 and 58: 9 < 58. So 2, 9, 58, 82.

Each step orders two things that stand next to each other, and where the next two stand is always
the same. In instant mode the steps stand in the answer.
"""

from collections.abc import Sequence

from nano.data.draw import Draw
from nano.data.sample import Sample, natural, said
from nano.data.words import WORDS

SORT = ("Sort: {0}", "Sort these numbers: {0}", "Put these in order: {0}",
    "Sort from small to large: {0}", "Order these numbers: {0}",
        "Sort the list {0}", "Sort in ascending order: {0}")  # fmt: skip
DESCEND = (
    "Sort from large to small: {0}",
    "Sort in descending order: {0}",
    "Sort these numbers, the largest first: {0}",
    "Order from high to low: {0}",
)
ALPHABET = (
    "Sort these words: {0}",
    "Sort alphabetically: {0}",
    "Put these words in alphabetical order: {0}",
    "Order these words by the alphabet: {0}",
)
# Which two are put in order, one pair after the other (Knuth, TAOCP 3, 5.3.4).
NETWORKS = {3: ((0, 1), (1, 2), (0, 1)), 4: ((0, 1), (2, 3), (0, 2), (1, 3), (1, 2))}


def sorting(draw: Draw) -> Sample:
    """Three or four numbers up or down, or words by the alphabet."""
    words, down = draw.chance(0.35), draw.chance(0.3)
    items = draw.mine(lambda: _sortable(draw, words), " ".join)
    asked, working, found = ordered(draw, items, words=words, down=down)
    question = natural(draw, asked, polite=False)
    if draw.chance(0.5):
        return said("sort", question, found, working)
    return said("sort", question, f"{working} So {found}.")


def ordered(
    draw: Draw, items: Sequence[str], *, words: bool = False, down: bool = False
) -> tuple[str, str, str]:
    """A question that wants items in order, its working, and the order; numbers may go down."""
    asks = ALPHABET if words else DESCEND if down else SORT
    found = sorted(items) if words else sorted(items, key=int, reverse=down)
    question = draw.pick(asks).format(", ".join(items))
    return question, compared(items, found, "<" if words or not down else ">"), ", ".join(found)


def compared(items: Sequence[str], found: Sequence[str], sign: str) -> str:
    """The working: `found` are the items in their order, `sign` stands between two of them."""
    wires, told = list(items), []
    for upper, lower in NETWORKS[len(items)]:
        pair = wires[upper], wires[lower]
        wires[upper], wires[lower] = sorted(pair, key=found.index)
        told.append(f"{' and '.join(pair)}: {wires[upper]} {sign} {wires[lower]}")
    return f"{'. '.join(told)}."


def _sortable(draw: Draw, words: bool) -> list[str]:
    """Different items; words by their first letters."""
    count = draw.number(3, 4)
    if not words:
        return [str(n) for n in draw.some(range(100), count)]
    return draw.some(by_initial(draw), count)


def by_initial(draw: Draw) -> list[str]:
    """One word for each letter that words begin with."""
    return [*{word[0]: word for word in draw.some(WORDS, len(WORDS))}.values()]
