"""Drills of the first stages: much to say for little to read, so that attention forms soon.

    echo     a long list, again                looking one token further than the last match
    items    lists of numbers and commas       looking past what stands between, and for
             decimals                          two tokens that follow each other
    times    times of the day, again           the same, where each has the same colon
    tally    long counts of few kinds          the same or another, at every item
    among    long counts of one letter         the same, in words never asked about alone
    mirror   a list from its end               looking one token before
    compare  the first of two, many times      knowing how large numbers are, and the alphabet
    near     numbers in order, all alike       telling one from the next
    rows     many values of one table          matching a name
    facts    numbers out of sentences          matching a thing
    match    requests, and the tool of each    seeing what is declared, and what is not
    sums     many small ones                   what is known by heart
    spell    the letters of several words      knowing what tokens are made of
    grid     what lies in each of nine cells   telling colours, shapes and places apart
    at       what lies at places               a place by its name
    where    places of shapes                  and its name by what is there
    place    the same of one or two            naming a place at all
    kinds    the colours of each kind          finding many by what they share
    film     up to eight colours in order      telling moments apart

Answers repeat what they answer ("apple: a p p l e"), so that nothing has to be counted off to know
what comes next. They are not evaluated; what grows of them is used by everything else.
"""

from collections.abc import Sequence
from dataclasses import replace
from string import ascii_lowercase

from nano.data.clips import animated, in_order, in_turn
from nano.data.draw import Draw, is_held_out
from nano.data.lists import COPY, LETTER, REVERSE, TIMES, marked
from nano.data.lookup import FIELDS, NEEDLE, a_number
from nano.data.numbers import WHOLE, choice, decimal, known
from nano.data.order import by_initial, ordered
from nano.data.pictures import (
    GROUNDS,
    NONE,
    PLACES,
    SHAPES,
    Scene,
    Shape,
    a_scene,
    drawn,
    of_kind,
    visible,
)
from nano.data.sample import Sample, said
from nano.data.shelf import SHELF
from nano.data.tools import NO_TOOL, a_call
from nano.data.words import ALL, LETTERED, NAMES, THINGS, WORDS

GRID = ("List the cells.", "Describe all nine cells.", "What is in each cell?")
EACH = ("{0}", "Calculate {0}.", "What is {0}?")
TOLD = ("Count the colours.", "Name the colours by number.", "Colour by colour.")
SPELL = ("Spell these words: {0}", "Which letters are in {0}?", "Spell {0}.")
BIGGER = ("Of each pair the bigger: {0}", "Which are bigger? {0}", "Name the bigger ones: {0}")
SMALLER = ("Of each pair the smaller: {0}", "Which are smaller? {0}", "Name the smaller ones: {0}")
EARLIER = ("Of each pair the first in the alphabet: {0}", "Which are first in the alphabet? {0}")
KINDS = ("List by kind: {0}.", "Name the colours of each kind: {0}.")
NUMBERS = ("What are the numbers of {0}?", "Numbers of {0}?", "List the numbers of {0}.")
AT = ("What is at the {0}?", "Name what is at the {0}.")
WHERE = ("Where are the {0}?", "Name the places of the {0}.")
ROWS = ("Look up the {0} of {1}.", "What is the {0} of {1}?", "{0}: {1}?")
_WORDS = tuple(dict.fromkeys(ALL))


def echo(draw: Draw) -> Sample:
    """A list of different words, said again."""
    text = " ".join(draw.some(_WORDS, draw.number(5, 24)))
    return said("echo", draw.pick(COPY).format(text), text)


def items(draw: Draw) -> Sample:
    """The same of numbers, or with commas; or decimals."""
    chosen = _decimals(draw, 10) if draw.chance(0.25) else _different(draw)
    text = draw.pick((", ", ", ", ", ", " ")).join(chosen[: draw.number(4, 16)])
    return said("items", draw.pick(COPY).format(text), text)


def times(draw: Draw) -> Sample:
    """Times of the day; their hours are different."""
    hours = draw.some(range(24), draw.number(2, 8))
    text = ", ".join(f"{hour:02d}:{draw.number(0, 59):02d}" for hour in hours)
    return said("times", draw.pick(COPY).format(text), text)


def tally(draw: Draw) -> Sample:
    """How often one of two or three letters or words comes."""
    kinds = draw.some(draw.pick((ascii_lowercase, ascii_lowercase, WORDS)), draw.number(2, 3))
    listed = draw.many(kinds, 6, 14)
    question = draw.pick(TIMES).format(", ".join(listed), kinds[0])
    return said("tally", question, marked(listed, kinds[0]))


def among(draw: Draw) -> Sample:
    """How often a letter comes in two to four words, or in letters that are no word."""
    if draw.chance(0.4):
        kinds = draw.some(ascii_lowercase, draw.number(3, 8))
        spelt = draw.mine(lambda: draw.many(kinds, 4, 14), " ".join)
        told = " ".join(spelt)
    else:
        words = draw.some(LETTERED, draw.number(2, 4))
        told, spelt = ", ".join(words), list("".join(words))
        kinds = [c for c in dict.fromkeys(spelt) if not _held_out(words, c)]
        if not kinds:
            return among(draw)
    wanted = draw.pick(kinds)
    return said("among", draw.pick(LETTER).format(told, wanted), marked(spelt, wanted))


def mirror(draw: Draw) -> Sample:
    """Up to eight different words or numbers, the last one first."""
    chosen, glue = _different(draw)[: draw.number(3, 8)], draw.pick((" ", ", "))
    return said("mirror", draw.pick(REVERSE).format(glue.join(chosen)), glue.join(chosen[::-1]))


def near(draw: Draw) -> Sample:
    """Three or four numbers of one stretch of ten in order."""
    low, down = draw.number(0, 90), draw.chance(0.4)
    numbers = [str(number) for number in range(low, low + 10)]
    chosen = draw.mine(lambda: draw.some(numbers, draw.number(3, 4)), " ".join)
    question, working, found = ordered(draw, chosen, down=down)
    return said("near", question, f"{working} So {found}.")


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


def compare(draw: Draw) -> Sample:
    """Four to eight pairs: one number or one word of each."""
    bigger, count = draw.chance(0.65), draw.number(4, 8)
    kind = draw.pick(("numbers", "numbers", "decimals", "words"))
    asks: Sequence[str]
    if kind == "words":
        pairs = [draw.some(by_initial(draw), 2) for _ in range(count)]
        told, asks = [f"{a} and {b}: {min(a, b)}" for a, b in pairs], EARLIER
    else:
        pairs = [_decimals(draw, 2) if kind == "decimals" else _numbers(draw) for _ in range(count)]
        told, asks = [choice(a, b, bigger) for a, b in pairs], BIGGER if bigger else SMALLER
    asked = ", ".join(" and ".join(pair) for pair in pairs)
    return said("compare", draw.pick(asks).format(asked), ", ".join(told))


def facts(draw: Draw) -> Sample:
    """Sentences about numbers of things; most of the numbers, in the order asked."""
    numbers = {thing: a_number(draw, thing) for thing in draw.some(THINGS, draw.number(4, 10))}
    text = " ".join(draw.pick(NEEDLE).format(*pair) for pair in numbers.items())
    asked = draw.some(list(numbers), len(numbers) - 1)
    question = f"{text}\n{draw.pick(NUMBERS).format(', '.join(asked))}"
    told = ", ".join(f"the number of the {thing} is {numbers[thing]}" for thing in asked)
    return said("facts", question, told)


def match(draw: Draw) -> Sample:
    """Requests in one message: what each is about, and the tool for it if there is one."""
    tools = draw.some(SHELF, 7)
    there = tools[: draw.number(2, 4)]
    calls = [a_call(draw, tool) for tool in draw.some(tools, draw.number(4, 7))]
    told = ", ".join(f"{c.tool.key}: {c.tool.name if c.tool in there else NO_TOOL}" for c in calls)
    sample = said("match", " ".join(call.sentence for call in calls), told)
    return replace(sample, tools=tuple(tool.schema for tool in there))


def sums(draw: Draw) -> Sample:
    """Four to eight results."""
    asked = [known(draw) for _ in range(draw.number(4, 8))]
    question = draw.pick(EACH).format(", ".join(f"{s.a} {s.sign} {s.b}" for s in asked))
    return said("sums", question, ", ".join(f"{s.a} {s.sign} {s.b} = {s.value}" for s in asked))


def grid(draw: Draw) -> Sample:
    """Nine cells, all full or some empty."""
    scene = _full(draw, 1.0 if draw.chance(0.5) else 0.6)
    shown = {shape.place: shape.name for shape in scene.shapes}
    return _seen(draw, "grid", scene, draw.pick(GRID), [shown.get(n, NONE) for n in range(9)])


def at(draw: Draw) -> Sample:
    """Two to six places: what is there."""
    scene = _full(draw, 0.5)
    shown = {shape.place: shape.name for shape in scene.shapes}
    asked = draw.some(range(9), draw.number(2, 6))
    question = draw.pick(AT).format(", ".join(PLACES[n] for n in asked))
    told = [f"{PLACES[n]}: {shown.get(n, NONE)}" for n in asked]
    return _seen(draw, "at", scene, question, told)


def where(draw: Draw) -> Sample:
    """One to six shapes that nothing else is like: where each is."""
    scene = _full(draw, 0.25 + 0.5 * draw.random.random())
    names = [shape.name for shape in scene.shapes]
    alone = [shape for shape in scene.shapes if names.count(shape.name) == 1]
    asked = draw.some(alone, min(len(alone), 6))
    if not asked:
        return where(draw)
    question = draw.pick(WHERE).format(", ".join(shape.name for shape in asked))
    return _seen(draw, "where", scene, question, [f"{s.name}: {s.where}" for s in asked])


def place(draw: Draw) -> Sample:
    """One or two shapes and nothing else: where each is."""
    scene = a_scene(draw, draw.number(1, 2))
    asked = draw.some(scene.shapes, len(scene.shapes))
    if len({shape.name for shape in asked}) < len(asked):
        return place(draw)
    question = draw.pick(WHERE).format(", ".join(shape.name for shape in asked))
    return _seen(draw, "place", scene, question, [f"{s.name}: {s.where}" for s in asked])


def kinds(draw: Draw) -> Sample:
    """Of each kind the colours, in reading order."""
    scene = _full(draw, 0.2 + 0.5 * draw.random.random())
    asked = draw.some(SHAPES, len(SHAPES))
    told = [f"{kind}s: {' '.join(of_kind(scene, kind))}" for kind in asked]
    question = draw.pick(KINDS).format(", ".join(f"{kind}s" for kind in asked))
    return _seen(draw, "kinds", scene, question, told)


def film(draw: Draw) -> Sample:
    """Three to eight colours."""
    colours = in_turn(draw, draw.number(3, 8))
    video = {"type": "video", "video": animated(draw, colours)}
    return said("film", [video, {"type": "text", "text": draw.pick(TOLD)}], in_order(colours))


def _held_out(words: Sequence[str], letter: str) -> bool:
    return any(is_held_out(f"{word}/{letter}") for word in words)


def _full(draw: Draw, odds: float) -> Scene:
    """Shapes in so many of the cells."""
    ground = draw.pick(GROUNDS)
    shapes = tuple(
        Shape(draw.pick(SHAPES), draw.pick(visible(ground)), place)
        for place in range(9)
        if draw.chance(odds)
    )
    return Scene(shapes, ground)


def _seen(draw: Draw, task: str, scene: Scene, question: str, told: Sequence[str]) -> Sample:
    image = {"type": "image", "image": drawn(draw, scene)}
    return said(task, [image, {"type": "text", "text": question}], ", ".join(told))


def _different(draw: Draw) -> list[str]:
    """Sixteen numbers, words, or some of both."""
    numbers = [str(number) for number in draw.some(range(100), 16)]
    words = draw.some(_WORDS, 16)
    return draw.pick((numbers, words, draw.some([*numbers, *words], 16)))


def _numbers(draw: Draw) -> list[str]:
    return [str(number) for number in draw.some(range(100), 2)]


def _decimals(draw: Draw, count: int) -> list[str]:
    """Their whole numbers are different."""
    return [decimal(draw, whole) for whole in draw.some(range(WHOLE + 1), count)]
