"""Copy, reverse, sort and count: what attention is for. Copying comes first in training."""

from collections.abc import Sequence

from nano.data.draw import Draw
from nano.data.sample import Sample, natural, said
from nano.data.words import CITIES, LETTERED, NAMES, WORDS

COPY = (
    "Repeat: {0}",
    "Say: {0}",
    "Copy this: {0}",
    "Repeat after me: {0}",
    "Write this again: {0}",
    "Echo {0}",
    "Say exactly this: {0}",
)
REVERSE = ("Reverse: {0}", "Reverse this list: {0}", "Say it backwards: {0}",
    "Write this in reverse order: {0}", "Reverse the order of {0}",
           "Turn this list around: {0}", "List these backwards: {0}",
           "Reverse the list {0}")  # fmt: skip
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
COUNT = ("How many words are there: {0}?", "Count the words: {0}",
    "How many items are in this list: {0}?", "Count these: {0}", "How many: {0}?",
         "How long is this list: {0}?", "Count the items: {0}")  # fmt: skip
TIMES = (
    "How many times does {1} appear: {0}?",
    "Count {1} in this list: {0}",
    "How often is {1} in: {0}?",
    "How many {1} are there: {0}?",
)
SPELL = (
    "Spell {0}.",
    "Spell the word {0}.",
    "How do you spell {0}?",
    "Give me the letters of {0}.",
    "Which letters are in {0}?",
)
LETTER = ("How many {1} are in {0}?", "How many times is {1} in the word {0}?",
    "How many letters {1} are in {0}?", "Count the letter {1} in {0}.",
          "How many {1}'s are in {0}?", "How often does {1} appear in {0}?")  # fmt: skip
MARKS = ("{0}", "{0}", '"{0}"', "'{0}'")


def copying(draw: Draw) -> Sample:
    """Say it again: words, names, digits, letters."""
    items = draw.mine(lambda: _items(draw, 2, 6), " ".join)
    text = draw.pick((" ", ", ")).join(items)
    return said(
        "copy", draw.pick(COPY).format(text), text, "I copy it." if draw.chance(0.3) else None
    )


def reversing(draw: Draw) -> Sample:
    """A list from its end to its beginning."""
    items = draw.mine(lambda: _items(draw, 2, 4), " ".join)
    glue = draw.pick((" ", ", ", ", "))
    thought = f"From the end: {_numbered(items[::-1])}" if draw.chance(0.3) else None
    question = natural(draw, draw.pick(REVERSE).format(glue.join(items)), polite=False)
    return said("reverse", question, glue.join(items[::-1]), thought)


def sorting(draw: Draw) -> Sample:
    """Numbers up or down, words by the alphabet."""
    words, down = draw.chance(0.35), draw.chance(0.3)
    items = draw.mine(lambda: _sortable(draw, words), " ".join)
    asks = ALPHABET if words else DESCEND if down else SORT
    found = sorted(items) if words else sorted(items, key=int, reverse=down)
    question = natural(draw, draw.pick(asks).format(", ".join(items)), polite=False)
    thought = _chosen(items, found) if draw.chance(0.5) else None
    return said("sort", question, ", ".join(found), thought)


def counting(draw: Draw) -> Sample:
    """How many items, or how many of one kind."""
    if draw.chance(0.5):
        items = draw.mine(lambda: _items(draw, 1, 6), " ".join)
        question, count = draw.pick(COUNT).format(", ".join(items)), len(items)
        thought = f"{_numbered(items)}. So {count}."
    else:
        items, wanted = draw.mine(lambda: _repeated(draw), lambda made: " ".join(made[0]))
        question = draw.pick(TIMES).format(", ".join(items), wanted)
        count = items.count(wanted)
        thought = _marked(items, wanted)
    if draw.chance(0.5):
        return said("count", natural(draw, question), str(count), thought)
    return said("count", natural(draw, question), thought)  # it counts aloud


def letters(draw: Draw) -> Sample:
    """The letters of a word: all of them, or how often one comes."""
    if draw.chance(0.3):  # a fact, and no other can tell it
        word = draw.pick(LETTERED)
        thought = "I spell it." if draw.chance(0.4) else None
        return said("letters", natural(draw, _quoted(draw, SPELL, word)), " ".join(word), thought)
    word, wanted = draw.mine(lambda: _lettered(draw), "/".join)
    question = natural(draw, _quoted(draw, LETTER, word, wanted))
    counted = _marked(word, wanted)
    if draw.chance(0.5):
        return said("letters", question, str(word.count(wanted)), counted)
    return said("letters", question, counted)  # it counts aloud


def _lettered(draw: Draw) -> tuple[str, str]:
    word = draw.pick(LETTERED)
    return word, draw.pick(word) if draw.chance(0.75) else draw.pick("aeinorst")


def _quoted(draw: Draw, asks: Sequence[str], word: str, *more: str) -> str:
    return draw.pick(asks).format(draw.pick(MARKS).format(word), *more)


def _items(draw: Draw, least: int, most: int) -> list[str]:
    count = draw.number(least, most)
    kind = draw.pick(("words", "words", "names", "digits", "letters", "cities"))
    if kind == "digits":
        return [str(draw.number(0, 99)) for _ in range(count)]
    pool: Sequence[str] = {
        "words": WORDS, "names": NAMES, "letters": "abcdefghijklmnopqrstuvwxyz", "cities": CITIES,
    }[kind]  # fmt: skip
    return draw.some(pool, count)


def _sortable(draw: Draw, words: bool) -> list[str]:
    count = draw.number(3, 4)
    if not words:
        return [str(n) for n in draw.some(range(100), count)]
    first: dict[str, str] = {}
    while len(first) < count:
        word = draw.pick(WORDS)
        first.setdefault(word[0], word)
    return draw.some(list(first.values()), count)


def _repeated(draw: Draw) -> tuple[list[str], str]:
    kinds = draw.some(WORDS, draw.number(2, 3))
    items = [draw.pick(kinds) for _ in range(draw.number(3, 6))]
    return items, kinds[0]


def _numbered(items: Sequence[str]) -> str:
    return ", ".join(f"{n} {item}" for n, item in enumerate(items, 1))


def _marked(items: Sequence[str], wanted: str) -> str:
    told, count = [], 0
    for item in items:
        count += item == wanted
        told.append(f"{item} {count}" if item == wanted else item)
    return f"{', '.join(told)}. So {count}."


def _chosen(items: Sequence[str], found: Sequence[str]) -> str:
    """Selection sort, told: what is next, what is left."""
    left, told = list(items), []
    for item in found[:-1]:
        left.remove(item)
        told.append(f"{item}, left {' '.join(left)}")
    return ". ".join(told) + "."
