"""Look a value up: in a small table, or a needle in a long text of no interest."""

from collections.abc import Sequence

from nano.data.draw import Draw
from nano.data.sample import Sample, followed, natural, said
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
NEEDLE = ("The number of the {0} is {1}.", "Remember: the number of the {0} is {1}.")
ASK = ("What is the number of the {0}?", "Tell me the number of the {0}.",
    "Which number has the {0}?", "Find the number of the {0}.", "Look up the number of the {0}.",
       "What was the number of the {0}?")  # fmt: skip
SHORT = 500  # tokens, up to which few numbers are hidden


def table(draw: Draw) -> Sample:
    """Rows of names with one or two fields; some cells are asked for, one after the other."""
    fields = draw.some(list(FIELDS), draw.number(1, 2))
    names = draw.some(NAMES, draw.number(2, 5))

    def rows() -> list[list[str]]:
        return [[name, *(FIELDS[field](draw) for field in fields)] for name in names]

    cells = draw.mine(rows, lambda made: "/".join(map("|".join, made)))
    written = draw.pick((_piped, _listed, _spoken))(fields, cells)
    before = draw.chance(0.7)
    turns = draw.number(1, 4)
    ask, found, row = _cell(draw, fields, cells)
    question = f"{written}\n{ask}" if before else f"{ask}\n{written}"
    if draw.chance(0.3):
        return said("table", question, found, _row(fields, row))
    sample = said("table", question, found)
    for _ in range(turns - 1):
        ask, found, _ = _cell(draw, fields, cells)
        sample = followed(sample, ask, found)
    return sample


def _cell(
    draw: Draw, fields: Sequence[str], cells: Sequence[Sequence[str]]
) -> tuple[str, str, Sequence[str]]:
    """A question, what is found, and the row that it is found in."""
    row, column = draw.pick(cells), draw.number(1, len(fields))
    ask = natural(draw, draw.pick(VALUE).format(fields[column - 1], row[0]))
    return ask, f"{row[0]}: {fields[column - 1]} {row[column]}.", row


def needle(draw: Draw, tokens: int) -> Sample:
    """Numbers of things, hidden in about `tokens` tokens; some are asked for, one by one."""
    things = draw.some(THINGS, draw.number(2, 4) if tokens <= SHORT else draw.number(4, 6))
    numbers = [a_number(draw, thing) for thing in things]
    lines = [_filler(draw) for _ in range(max(2, tokens // LINE))]
    for thing, number in zip(things, numbers, strict=True):
        lines.insert(draw.number(0, len(lines)), draw.pick(NEEDLE).format(thing, number))
    text = " ".join(lines)
    asked = [*draw.some(range(1, len(things)), draw.number(0, len(things) - 1)), 0]
    ask = natural(draw, draw.pick(ASK).format(things[asked[0]]))
    question = f"{text}\n{ask}" if draw.chance(0.8) else f"{ask}\n{text}"
    if len(asked) == 1 and draw.chance(0.5):
        return said("needle", question, numbers[0], _found(things[0], numbers[0]))
    sample = said("needle", question, _found(things[asked[0]], numbers[asked[0]]))
    for n in asked[1:]:
        ask = natural(draw, draw.pick(ASK).format(things[n]))
        sample = followed(sample, ask, _found(things[n], numbers[n]))
    return sample


def a_number(draw: Draw, thing: str) -> str:
    """A number that a thing may have in this split."""
    return draw.mine(lambda: str(draw.number(10, 99)), lambda made: f"{thing}{made}")


def _found(thing: str, number: str) -> str:
    return f"The number of the {thing} is {number}."


def _filler(draw: Draw) -> str:
    return draw.pick(FILLER).format(
        draw.pick(THINGS), draw.pick(THINGS), draw.pick(NAMES), draw.pick(CITIES),
        draw.pick(ANIMALS),
        draw.pick(FRUITS),
    )  # fmt: skip


def _piped(fields: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    return "\n".join(" | ".join(row) for row in (["name", *fields], *cells))


def _listed(fields: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    return "\n".join(_row(fields, row) for row in cells)


def _row(fields: Sequence[str], row: Sequence[str]) -> str:
    return f"{row[0]}: {_pairs(fields, row[1:])}"


def _spoken(fields: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    told = (f"{row[0]} has {_pairs(fields, row[1:])}." for row in cells)
    return " ".join(told)


def _pairs(fields: Sequence[str], values: Sequence[str]) -> str:
    return ", ".join(f"{field} {value}" for field, value in zip(fields, values, strict=True))
