"""Copy, reverse and count: what attention is for. Copying comes first in training.

counting   c 0, h 0, e 0, r 1, r 2, y 2. So 2.     the number so far behind every item
"""

from collections.abc import Sequence
from string import ascii_lowercase

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
    return said("copy", draw.pick(COPY).format(text), text, text if draw.chance(0.3) else None)


def reversing(draw: Draw) -> Sample:
    """A list from its end to its beginning."""
    items = draw.mine(lambda: _items(draw, 2, 4), " ".join)
    glue = draw.pick((" ", ", ", ", "))
    found = glue.join(items[::-1])
    thought = f"From the end: {found}" if draw.chance(0.3) else None
    question = natural(draw, draw.pick(REVERSE).format(glue.join(items)), polite=False)
    return said("reverse", question, found, thought)


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
        thought = marked(items, wanted)
    if draw.chance(0.5):
        return said("count", natural(draw, question), f"So {count}.", thought)
    return said("count", natural(draw, question), thought)  # it counts aloud


def letters(draw: Draw) -> Sample:
    """The letters of a word: all of them, or how often one comes."""
    if draw.chance(0.3):  # a fact, and no other can tell it
        word = draw.pick(LETTERED)
        spelt, thinking = " ".join(word), draw.chance(0.4)
        question = natural(draw, _quoted(draw, SPELL, word))
        return said("letters", question, spelt, spelt if thinking else None)
    word, wanted = draw.mine(lambda: _lettered(draw), "/".join)
    question = natural(draw, _quoted(draw, LETTER, word, wanted))
    counted = marked(word, wanted)
    if draw.chance(0.5):
        return said("letters", question, f"So {word.count(wanted)}.", counted)
    return said("letters", question, counted)  # it counts aloud


def _lettered(draw: Draw) -> tuple[str, str]:
    word = draw.pick(LETTERED)
    return word, draw.pick(word if draw.chance(0.75) else ascii_lowercase)


def _quoted(draw: Draw, asks: Sequence[str], word: str, *more: str) -> str:
    return draw.pick(asks).format(draw.pick(MARKS).format(word), *more)


def _items(draw: Draw, least: int, most: int) -> list[str]:
    count = draw.number(least, most)
    kind = draw.pick(("words", "words", "names", "digits", "letters", "cities"))
    if kind == "digits":
        return [str(number) for number in draw.some(range(100), count)]
    pool: Sequence[str] = {
        "words": WORDS, "names": NAMES, "letters": ascii_lowercase, "cities": CITIES,
    }[kind]  # fmt: skip
    return draw.some(pool, count)


def _repeated(draw: Draw) -> tuple[list[str], str]:
    kinds = draw.some(draw.pick((WORDS, WORDS, ascii_lowercase)), draw.number(2, 3))
    items = draw.many(kinds, 3, 6)
    return items, kinds[0]


def _numbered(items: Sequence[str]) -> str:
    return ", ".join(f"{n} {item}" for n, item in enumerate(items, 1))


def marked(items: Sequence[str], wanted: str) -> str:
    """The working of a count: behind every item how many there were."""
    told, count = [], 0
    for item in items:
        count += item == wanted
        told.append(f"{item} {count}")
    return f"{', '.join(told)}. So {count}."
