"""Drills of the first stage: much to say for little to read, so that attention and sight form soon.

    echo     a long list, again               looking one token further than the last match
    mirror   a list from its end              looking one token before
    rows     many values of one table         matching a name
    schema   what a declared tool takes       reading declarations
    spell    the letters of several words     knowing what tokens are made of
    grid     what lies in each of nine cells  telling colours, shapes and places apart
    film     up to eight colours in order     telling moments apart

They are not evaluated; what grows of them is used by everything else.
"""

from dataclasses import replace

from nano.data.clips import ORDER, animated, in_turn
from nano.data.draw import Draw
from nano.data.lists import COPY, REVERSE
from nano.data.lookup import FIELDS
from nano.data.pictures import GROUNDS, SHAPES, Scene, Shape, drawn, visible
from nano.data.sample import Sample, said
from nano.data.shelf import SHELF, declared
from nano.data.words import ALL, LETTERED, NAMES

GRID = ("List the cells.", "Describe all nine cells.", "What is in each cell?")
SPELL = ("Spell these words: {0}", "Which letters are in {0}?", "Spell {0}.")
TAKES = ("What does {0} take?", "Name the parameters of {0}.", "Parameters of {0}?")
ROWS = ("Look up the {0} of {1}.", "What is the {0} of {1}?", "{0}: {1}?")
EMPTY = "none"
_WORDS = tuple(dict.fromkeys(ALL))


def echo(draw: Draw) -> Sample:
    """A list, said again: mostly of different words, which is the easiest, or of anything."""
    if draw.chance(0.85):
        text = " ".join(draw.some(_WORDS, draw.number(5, 24)))
    else:
        text = draw.pick((" ", ", ")).join(_things(draw, 10, 40))
    return said("echo", draw.pick(COPY).format(text), text)


def mirror(draw: Draw) -> Sample:
    """Up to ten words and numbers, the last one first."""
    items, glue = _things(draw, 3, 10), draw.pick((" ", ", "))
    return said("mirror", draw.pick(REVERSE).format(glue.join(items)), glue.join(items[::-1]))


def rows(draw: Draw) -> Sample:
    """The values of several names, in the order asked."""
    field = draw.pick(list(FIELDS))
    names = draw.some(NAMES, draw.number(5, 12))
    values = {name: FIELDS[field](draw) for name in names}
    table = draw.pick(("\n", ", ")).join(f"{name}: {value}" for name, value in values.items())
    asked = draw.some(names, len(names) - 1)
    question = f"{table}\n{draw.pick(ROWS).format(field, ', '.join(asked))}"
    return said("rows", question, ", ".join(values[name] for name in asked))


def spell(draw: Draw) -> Sample:
    """The letters of three to eight words."""
    words = draw.some(LETTERED, draw.number(3, 8))
    question = draw.pick(SPELL).format(", ".join(words))
    return said("spell", question, ", ".join(" ".join(word) for word in words))


def schema(draw: Draw) -> Sample:
    """The names of all parameters of one tool, as this conversation declares them."""
    tools = [declared(draw, tool) for tool in draw.some(SHELF, draw.number(1, 4))]
    tool = draw.pick(tools)
    sample = said("schema", draw.pick(TAKES).format(tool.name), ", ".join(sorted(tool.parameters)))
    return replace(sample, tools=tuple(each.schema for each in tools))


def grid(draw: Draw) -> Sample:
    """Nine cells, all full or some empty."""
    ground = draw.pick(GROUNDS)
    full = 1.0 if draw.chance(0.5) else 0.6
    shapes = {
        place: Shape(draw.pick(SHAPES), draw.pick(visible(ground)), place)
        for place in range(9)
        if draw.chance(full)
    }
    image = {"type": "image", "image": drawn(draw, Scene(tuple(shapes.values()), ground))}
    cells = (shapes.get(place) for place in range(9))
    told = ", ".join(EMPTY if cell is None else f"{cell.colour} {cell.kind}" for cell in cells)
    return said("grid", [image, {"type": "text", "text": draw.pick(GRID)}], told)


def film(draw: Draw) -> Sample:
    """Three to eight frames."""
    colours = in_turn(draw, draw.number(3, 8))
    video = {"type": "video", "video": animated(draw, colours)}
    return said("film", [video, {"type": "text", "text": draw.pick(ORDER)}], ", ".join(colours))


def _things(draw: Draw, least: int, most: int) -> list[str]:
    numbers = draw.pick((0.1, 0.5, 1.0))  # one list is mostly words, another mostly numbers
    return [
        str(draw.number(0, 999)) if draw.chance(numbers) else draw.pick(ALL)
        for _ in range(draw.number(least, most))
    ]
