"""Drills of the first stage: much to say for little to read, so that attention and sight form soon.

    echo     a long list, again               looking one token further than the last match
    items    lists of numbers and commas      looking past what stands between
    mirror   a list from its end              looking one token before
    order    longer lists, sorted             comparing
    rows     many values of one table         matching a name
    schema   tools and what they take         reading declarations
    sums     many small ones                  what is known by heart
    spell    the letters of several words     knowing what tokens are made of
    grid     what lies in each of nine cells  telling colours, shapes and places apart
    film     up to eight colours in order     telling moments apart

Answers repeat what they answer ("apple: a p p l e"), so that nothing has to be counted off to know
what comes next. They are not evaluated; what grows of them is used by everything else.
"""

from collections.abc import Sequence
from dataclasses import replace

from nano.data.clips import animated, in_turn
from nano.data.draw import Draw
from nano.data.lists import ALPHABET, COPY, DESCEND, REVERSE, SORT
from nano.data.lookup import FIELDS
from nano.data.numbers import known
from nano.data.pictures import GROUNDS, SHAPES, Scene, Shape, drawn, visible
from nano.data.sample import Sample, followed, said
from nano.data.shelf import SHELF, declared
from nano.data.words import ALL, LETTERED, NAMES

GRID = ("List the cells.", "Describe all nine cells.", "What is in each cell?")
EACH = ("{0}", "Calculate {0}.", "What is {0}?")
TOLD = ("Count the colours.", "Name the colours by number.", "Colour by colour.")
SPELL = ("Spell these words: {0}", "Which letters are in {0}?", "Spell {0}.")
WHICH = ("Which tools are there?", "List your tools.", "Name all tools.")
TAKES = ("What does {0} take?", "Name the parameters of {0}.", "Parameters of {0}?")
ROWS = ("Look up the {0} of {1}.", "What is the {0} of {1}?", "{0}: {1}?")
EMPTY = "none"
_WORDS = tuple(dict.fromkeys(ALL))


def echo(draw: Draw) -> Sample:
    """A list of different words, said again."""
    text = " ".join(draw.some(_WORDS, draw.number(5, 24)))
    return said("echo", draw.pick(COPY).format(text), text)


def items(draw: Draw) -> Sample:
    """The same of numbers, or with commas."""
    text = draw.pick((", ", ", ", ", ", " ")).join(_different(draw)[: draw.number(4, 16)])
    return said("items", draw.pick(COPY).format(text), text)


def mirror(draw: Draw) -> Sample:
    """Up to eight different words or numbers, the last one first."""
    chosen, glue = _different(draw)[: draw.number(3, 8)], draw.pick((" ", ", "))
    return said("mirror", draw.pick(REVERSE).format(glue.join(chosen)), glue.join(chosen[::-1]))


def order(draw: Draw) -> Sample:
    """Up to ten numbers or words, sorted."""
    most = draw.number(4, 10)
    if draw.chance(0.3):
        words = sorted({word[0]: word for word in draw.some(_WORDS, 24)}.values())[:most]
        return _ordered(draw, words, ALPHABET, words)
    numbers = draw.some(range(100), most)
    down = draw.chance(0.3)
    found = sorted(numbers, reverse=down)
    return _ordered(draw, [*map(str, numbers)], DESCEND if down else SORT, [*map(str, found)])


def rows(draw: Draw) -> Sample:
    """The values of several names, in the order asked."""
    field = draw.pick(list(FIELDS))
    names = draw.some(NAMES, draw.number(5, 12))
    values = {name: FIELDS[field](draw) for name in names}
    table = draw.pick(("\n", ", ")).join(f"{name}: {value}" for name, value in values.items())
    asked = draw.some(names, len(names) - 1)
    question = f"{table}\n{draw.pick(ROWS).format(field, ', '.join(asked))}"
    return said("rows", question, ", ".join(f"{name}: {values[name]}" for name in asked))


def spell(draw: Draw) -> Sample:
    """The letters of three to eight words."""
    words = draw.some(LETTERED, draw.number(3, 8))
    question = draw.pick(SPELL).format(", ".join(words))
    return said("spell", question, ", ".join(f"{word}: {' '.join(word)}" for word in words))


def schema(draw: Draw) -> Sample:
    """All tools, then the parameters of some, in the order in which the prompt declares them."""
    tools = [declared(draw, tool) for tool in draw.some(SHELF, draw.number(2, 4))]
    names = [tool.name for tool in tools]
    sample = said("schema", draw.pick(WHICH), ", ".join(names))
    for tool in draw.some(tools, 2):
        told = f"{tool.name}: {', '.join(tool.in_order)}"
        sample = followed(sample, draw.pick(TAKES).format(tool.name), told)
    return replace(sample, tools=tuple(tool.schema for tool in tools))


def sums(draw: Draw) -> Sample:
    """Four to eight results."""
    asked = [known(draw) for _ in range(draw.number(4, 8))]
    question = draw.pick(EACH).format(", ".join(f"{s.a} {s.sign} {s.b}" for s in asked))
    return said("sums", question, ", ".join(f"{s.a} {s.sign} {s.b} = {s.value}" for s in asked))


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
    """Three to eight colours."""
    colours = in_turn(draw, draw.number(3, 8))
    video = {"type": "video", "video": animated(draw, colours)}
    told = ", ".join(f"{n} {colour}" for n, colour in enumerate(colours, 1))
    return said("film", [video, {"type": "text", "text": draw.pick(TOLD)}], told)


def _different(draw: Draw) -> list[str]:
    """Sixteen numbers, words, or some of both."""
    numbers = [str(number) for number in draw.some(range(100), 16)]
    words = draw.some(_WORDS, 16)
    return draw.pick((numbers, words, draw.some([*numbers, *words], 16)))


def _ordered(draw: Draw, given: list[str], asks: Sequence[str], found: list[str]) -> Sample:
    mixed = ", ".join(draw.some(given, len(given)))
    return said("order", draw.pick(asks).format(mixed), ", ".join(found))
