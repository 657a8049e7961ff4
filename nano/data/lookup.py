"""Look a value up: in a small table, or a needle in a long text of no interest."""

from collections.abc import Sequence

from nano.data.draw import Draw
from nano.data.sample import Sample, natural, said
from nano.data.words import ANIMALS, CITIES, COLOURS, FRUITS, NAMES, THINGS

FIELDS = {
    "age": lambda draw: str(draw.number(1, 99)),
    "city": lambda draw: draw.pick(CITIES),
    "colour": lambda draw: draw.pick(list(COLOURS)),
    "pet": lambda draw: draw.pick(ANIMALS),
    "fruit": lambda draw: draw.pick(FRUITS),
    "price": lambda draw: str(draw.number(1, 99)),
    "score": lambda draw: str(draw.number(0, 99)),
}
VALUE = ("What is the {0} of {1}?", "What is {1}'s {0}?", "Look up the {0} of {1}.",
    "Find the {0} of {1}.", "Tell me the {0} of {1}.",
         "Which {0} does {1} have?", "{1}: {0}?")  # fmt: skip
WHO = (
    "Who has the {0} {1}?",
    "Whose {0} is {1}?",
    "Which name has the {0} {1}?",
    "Find who has {0} {1}.",
)

FILLER = (
    "The {0} is next to the {1}.", "{2} went to {3} with a {0}.", "There is a {0} in the {1}.",
    "{2} likes the {4} and the {0}.",
    "Every day {2} sees a {4}.", "It was a long day in {3}.", "The {4} sat on the {0}.",
    "{2} bought a {5} in {3}.",
    "Nobody saw the {0}.", "A {4} and a {0} are not the same.", "{2} told a story about the {4}.",
    "The {1} was very old.",
    "In {3} the {5} is good.", "{2} gave the {0} to the {4}.",
)  # fmt: skip
LINE = 6  # tokens of a line, about
NEEDLE = (
    "The secret code of the {0} is {1}.",
    "The code for the {0} is {1}.",
    "Remember: the number of the {0} is {1}.",
    "The {0} has the number {1}.",
)
ASK = ("What is the number of the {0}?", "What is the code of the {0}?",
    "What is the secret code of the {0}?", "Which number has the {0}?",
       "Find the number of the {0}.", "What was the code for the {0}?")  # fmt: skip


def table(draw: Draw) -> Sample:
    """Rows of names with one or two fields; one cell is asked for."""
    fields = draw.some(list(FIELDS), draw.number(1, 2))
    names = draw.some(NAMES, draw.number(2, 5))

    def rows() -> list[list[str]]:
        return [[name, *(FIELDS[field](draw) for field in fields)] for name in names]

    cells = draw.mine(rows, lambda made: "/".join(map("|".join, made)))
    row, column = draw.pick(cells), draw.number(1, len(fields))
    written = draw.pick((_piped, _listed, _spoken))(fields, cells)
    unique = sum(each[column] == row[column] for each in cells) == 1
    if unique and draw.chance(0.3):
        ask, content = draw.pick(WHO).format(fields[column - 1], row[column]), row[0]
    else:
        ask, content = draw.pick(VALUE).format(fields[column - 1], row[0]), row[column]
    found = f"{row[0]}: {fields[column - 1]} {row[column]}."
    ask = natural(draw, ask)
    question = f"{written}\n{ask}" if draw.chance(0.7) else f"{ask}\n{written}"
    if draw.chance(0.4):
        return said("table", question, content, found)
    return said("table", question, found)


def needle(draw: Draw, tokens: int) -> Sample:
    """A number for a thing, hidden in about `tokens` tokens; others, for other things, distract."""
    things = draw.some(THINGS, draw.number(1, 3))
    numbers = draw.mine(
        lambda: [str(draw.number(10, 99)) for _ in things],
        lambda made: f"{things[0]}{made[0]}",
    )
    lines = [_filler(draw) for _ in range(max(2, tokens // LINE))]
    for thing, number in zip(things, numbers, strict=True):
        lines.insert(draw.number(0, len(lines)), draw.pick(NEEDLE).format(thing, number))
    ask = natural(draw, draw.pick(ASK).format(things[0]))
    text = " ".join(lines)
    question = f"{text}\n{ask}" if draw.chance(0.8) else f"{ask}\n{text}"
    found = f"The {things[0]} has the number {numbers[0]}."
    if draw.chance(0.3):
        return said("needle", question, numbers[0], found)
    return said("needle", question, found)


def _filler(draw: Draw) -> str:
    return draw.pick(FILLER).format(
        draw.pick(THINGS), draw.pick(THINGS), draw.pick(NAMES), draw.pick(CITIES),
        draw.pick(ANIMALS),
        draw.pick(FRUITS),
    )  # fmt: skip


def _piped(fields: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    return "\n".join(" | ".join(row) for row in (["name", *fields], *cells))


def _listed(fields: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"{row[0]}: {_pairs(fields, row[1:])}" for row in cells)


def _spoken(fields: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    told = (f"{row[0]} has {_pairs(fields, row[1:])}." for row in cells)
    return " ".join(told)


def _pairs(fields: Sequence[str], values: Sequence[str]) -> str:
    return ", ".join(f"{field} {value}" for field, value in zip(fields, values, strict=True))
