"""Which family how often, in four stages of training.

    echo    one dense exercise alone (nano/data/drills.py): side by side each takes longer
    grid    mostly another, some of each, and a little of everything
    all     everything, contexts up to a few hundred tokens
    long    the same, and contexts up to 3,000 tokens

A batch is a pure function of (seed, number): no state has to be kept to go on in the same order.
"""

from collections.abc import Callable, Iterator, Mapping

from nano.data import clips, drills, lists, lookup, numbers, pictures, talk, tools
from nano.data.draw import Draw
from nano.data.sample import Sample, joined

Make = Callable[[Draw], Sample]


def _needle(low: int, high: int) -> Make:
    return lambda draw: lookup.needle(draw, draw.number(low, high))


FAMILIES: Mapping[str, Make] = {
    "identity": talk.identity,
    "small talk": talk.small_talk,
    "system prompt": talk.persona,
    "refusal": talk.refusal,
    "arithmetic": numbers.arithmetic,
    "large sums": numbers.large_sum,
    "comparison": numbers.comparison,
    "copy": lists.copying,
    "reverse": lists.reversing,
    "sort": lists.sorting,
    "count": lists.counting,
    "letters": lists.letters,
    "table": lookup.table,
    "needle 200": _needle(40, 300),
    "needle 1000": _needle(600, 1300),
    "needle 3000": _needle(2000, 3000),
    "picture": pictures.picture,
    "clip": clips.clip,
    "one call": tools.one_call,
    "two calls": tools.two_calls,
    "tool result": tools.second_step,
    "no call": tools.no_call,
}

DRILLS: Mapping[str, Make] = {
    "echo": drills.echo, "items": drills.items, "mirror": drills.mirror, "order": drills.order,
    "rows": drills.rows, "spell": drills.spell, "schema": drills.schema, "sums": drills.sums,
    "grid": drills.grid, "film": drills.film,
}  # fmt: skip

_ALL = {
    "identity": 3, "small talk": 3, "system prompt": 5, "refusal": 5, "arithmetic": 14,
    "large sums": 5, "comparison": 7, "copy": 3, "reverse": 6, "sort": 9, "count": 6, "letters": 5,
    "table": 6, "needle 200": 2, "picture": 20, "clip": 6, "one call": 7, "two calls": 5,
    "tool result": 4, "no call": 4,
}  # fmt: skip
_DRILLS = {
    "echo": 1, "items": 3, "mirror": 3, "order": 4, "rows": 3, "spell": 3, "schema": 3, "sums": 4,
    "grid": 8, "film": 3,
}  # fmt: skip
STAGES: Mapping[str, Mapping[str, float]] = {
    "echo": {"echo": 1},
    "grid": {name: 0.1 * weight for name, weight in _ALL.items()} | {
        "grid": 48, "film": 10, "echo": 4, "items": 18, "mirror": 6, "order": 4, "rows": 8,
        "spell": 6, "schema": 5, "sums": 8},
    "all": _ALL | _DRILLS,
    "long": _ALL | {"needle 1000": 0.6, "needle 3000": 0.25},
}  # fmt: skip
DRILLING = ("echo", "grid")
FIRST = {
    "copy": 20, "reverse": 10, "count": 5, "table": 15, "arithmetic": 15, "comparison": 5,
    "letters": 5, "identity": 3, "small talk": 2,
}  # fmt: skip
JOINED = 0.15  # conversations that go on from another, one of FIRST


def sample(draw: Draw, stage: str) -> Sample:
    """One conversation of a stage; now and then it goes on from another."""
    made = _one(draw, STAGES[stage])
    if stage in DRILLING or not draw.chance(JOINED):
        return made
    first = _one(draw, FIRST)
    return made if first.thinking else joined(first, made)


def _one(draw: Draw, odds: Mapping[str, float]) -> Sample:
    name = _drawn(draw, odds)
    return (FAMILIES.get(name) or DRILLS[name])(draw)


def _drawn(draw: Draw, odds: Mapping[str, float]) -> str:
    at = draw.random.random() * sum(odds.values())
    for name, weight in odds.items():
        at -= weight
        if at < 0:
            return name
    return [*odds][-1]  # what rounding left over


def held_out(family: str, count: int, seed: int = 0) -> list[Sample]:
    """Conversations of one family that training never sees."""
    return [FAMILIES[family](Draw.of(f"{seed}/{family}/{n}", "test")) for n in range(count)]


def stream(seed: int, number: int, stage: str) -> Iterator[Sample]:
    """The conversations of one training step, without end."""
    draw = Draw.of(f"{seed}/{number}")
    while True:
        yield sample(draw, stage)
