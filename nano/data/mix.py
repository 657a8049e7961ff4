"""Which family how often, in the stages of training.

    echo .. mirror  one dense exercise after another (nano/data/drills.py), with some of those
                    before: side by side each takes longer, and what does not come is forgotten
    mixed           all of them, and a little of everything
    all             everything, contexts up to a few hundred tokens, some of a thousand
    tasks           the same with few drills: what lags behind has the place of the others
    again           lists above all, which the stages since the first had spoilt
    rest            as before; in sorting .. looking one kind of task above all
    last            everything again, weighed by what is still wrong; counting .. calling as above
    end             the same, with more of what was wrong then
    long            the same, and more contexts of up to 3,000 tokens
    settling, other end, other long
                    the second end of the run, with other odds (nano/training/schedule.py)
    mending, tallying, mean
                    from the mean of both, with more of what the mean loses

A batch is a pure function of (seed, number): no state has to be kept to go on in the same order.
"""

from collections.abc import Callable, Iterator, Mapping

from nano.data import clips, drills, lists, lookup, numbers, order, pictures, talk, tools
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
    "sort": order.sorting,
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
    "echo": drills.echo, "items": drills.items, "times": drills.times, "tally": drills.tally,
    "mirror": drills.mirror, "among": drills.among, "near": drills.near,
    "compare": drills.compare, "rows": drills.rows,
    "facts": drills.facts, "match": drills.match, "spell": drills.spell, "sums": drills.sums,
    "grid": drills.grid, "at": drills.at, "where": drills.where, "place": drills.place,
    "kinds": drills.kinds, "film": drills.film,
}  # fmt: skip


def _part(share: float, odds: Mapping[str, float]) -> dict[str, float]:
    return {name: share * weight for name, weight in odds.items()}


_ALL = {
    "identity": 3, "small talk": 3, "system prompt": 5, "refusal": 4, "arithmetic": 11,
    "large sums": 6, "comparison": 7, "copy": 2, "reverse": 5, "sort": 8, "count": 5, "letters": 5,
    "table": 5, "needle 200": 4, "needle 1000": 0.5, "picture": 18, "clip": 5, "one call": 6,
    "two calls": 6, "tool result": 5, "no call": 7,
}  # fmt: skip
_DRILLS = {
    "items": 5, "mirror": 4, "compare": 5, "rows": 2, "facts": 2, "match": 3, "spell": 3,
    "sums": 4, "times": 2, "grid": 3, "at": 2, "where": 3, "kinds": 3, "film": 2,
}  # fmt: skip
_TASKS = {
    "identity": 2, "small talk": 4, "system prompt": 6, "refusal": 3, "arithmetic": 11,
    "large sums": 7, "comparison": 8, "copy": 4, "reverse": 9, "sort": 10, "count": 7, "letters": 8,
    "table": 6, "needle 200": 3, "needle 1000": 0.6, "picture": 28, "clip": 8, "one call": 4,
    "two calls": 5, "tool result": 7, "no call": 7, "items": 3, "compare": 4, "rows": 1,
    "facts": 0.5, "match": 1, "spell": 3, "sums": 3, "grid": 3, "at": 1, "kinds": 2, "film": 3,
    "times": 1.5,
}  # fmt: skip
_REST = _TASKS | {
    "items": 4, "rows": 3, "compare": 6, "copy": 5, "table": 12, "identity": 1, "small talk": 3,
    "refusal": 2, "system prompt": 5,
}  # fmt: skip
_LAST = {
    "identity": 2, "small talk": 4, "system prompt": 8, "refusal": 3, "arithmetic": 11,
    "large sums": 7, "comparison": 9, "copy": 5, "reverse": 10, "sort": 13, "count": 8,
    "letters": 8, "table": 11, "needle 200": 3, "needle 1000": 0.6, "needle 3000": 0.2,
    "picture": 28, "clip": 12, "one call": 4, "two calls": 5, "tool result": 9, "no call": 8,
    "items": 3, "compare": 4, "rows": 2, "facts": 0.5, "spell": 2, "sums": 3, "grid": 2, "kinds": 2,
    "film": 4, "times": 1,
}  # fmt: skip
_END = _LAST | {
    "letters": 14, "count": 13, "tally": 5, "table": 24, "comparison": 13, "compare": 6,
    "picture": 40, "system prompt": 10, "tool result": 11, "sort": 15,
}  # fmt: skip
_OTHER_END = _LAST | {
    "letters": 14, "count": 14, "tally": 5, "table": 24, "comparison": 18, "compare": 7,
    "picture": 56, "clip": 7, "tool result": 16, "two calls": 10, "sort": 16, "arithmetic": 8,
    "large sums": 4, "system prompt": 9, "no call": 6, "film": 2,
}  # fmt: skip
STAGES: Mapping[str, Mapping[str, float]] = {
    "echo": {"echo": 1},
    "lists": {"items": 5, "rows": 4, "echo": 1.5},
    "facts": {"facts": 5, "rows": 2, "items": 3},
    "grid": {"grid": 7, "film": 1, "facts": 1, "rows": 1, "items": 1.5},
    "at": {"at": 7, "grid": 2, "film": 1, "facts": 1, "rows": 1, "items": 1.5},
    "where": {"where": 8, "at": 1.5, "grid": 1.5, "facts": 0.7, "rows": 0.7, "items": 1.5},
    "match": {"match": 7, "where": 1.5, "grid": 1, "at": 1, "facts": 1, "rows": 1, "items": 1.5},
    "place": {"place": 8, "where": 2, "match": 2, "grid": 1, "at": 1, "facts": 1, "rows": 1,
        "items": 1.8},
    "kinds": {"kinds": 8, "place": 1.5, "where": 2, "match": 1, "grid": 1, "at": 1, "facts": 0.7,
        "rows": 0.7, "items": 1.8},
    "compare": {"compare": 8, "match": 1.5, "where": 2.5, "kinds": 1, "grid": 0.7, "facts": 1,
        "rows": 1, "items": 2},
    "mirror": {"mirror": 12, "items": 4, "compare": 2, "match": 0.5, "where": 0.7, "kinds": 0.7,
        "grid": 0.5, "facts": 0.5, "rows": 0.5},
    "mixed": _part(0.2, _ALL) | {
        "items": 4, "mirror": 5, "compare": 5, "rows": 2, "facts": 2, "match": 3, "spell": 5,
        "sums": 6, "times": 2, "sort": 6, "grid": 2, "at": 2, "where": 3, "kinds": 2, "film": 3},
    "all": _ALL | _DRILLS,
    "tasks": _TASKS,
    "again": _part(0.4, _TASKS) | {
        "items": 20, "rows": 10, "reverse": 22, "copy": 12, "count": 10, "table": 16, "sort": 8},
    "rest": _REST,
    "sorting": _part(0.35, _REST) | {
        "sort": 70, "compare": 15, "comparison": 12, "table": 10, "rows": 4},
    "seeing": _part(0.35, _REST) | {
        "picture": 70, "clip": 25, "film": 4, "kinds": 6},
    "reckoning": _part(0.35, _REST) | {
        "arithmetic": 40, "large sums": 25, "letters": 30, "count": 20, "sums": 5, "spell": 4,
        "table": 12},
    "looking": _part(0.35, _REST) | {
        "table": 40, "reverse": 40, "count": 20, "rows": 8, "items": 5, "copy": 10,
        "needle 200": 4},
    "counting": _part(0.3, _LAST) | {
        "count": 60, "letters": 45, "spell": 4},
    "ordering": _part(0.3, _LAST) | {
        "sort": 75, "compare": 12, "comparison": 25},
    "summing": _part(0.3, _LAST) | {
        "arithmetic": 35, "large sums": 40, "sums": 6, "count": 12, "letters": 10},
    "finding": _part(0.3, _LAST) | {
        "table": 40, "reverse": 35, "tool result": 12, "two calls": 8, "sort": 12, "rows": 5,
        "items": 5},
    "spelling": _part(0.3, _LAST) | {
        "letters": 70, "tally": 30, "count": 15, "spell": 3},
    "watching": _part(0.3, _LAST) | {
        "picture": 80, "clip": 15, "film": 4, "kinds": 6, "grid": 4},
    "calling": _part(0.3, _LAST) | {
        "no call": 25, "tool result": 45, "two calls": 12, "one call": 8, "system prompt": 18,
        "small talk": 12, "times": 4, "picture": 16},
    "settling": _part(0.3, _LAST) | {
        "comparison": 35, "compare": 8, "picture": 75, "tool result": 28, "two calls": 25,
        "count": 12, "table": 25},
    "last": _LAST,
    "end": _END,
    "long": _END | {
        "needle 1000": 1.8, "needle 3000": 1.1, "table": 28,
        "picture": 56, "reverse": 13},
    "other end": _OTHER_END,
    "other long": _OTHER_END | {
        "needle 1000": 1.8, "needle 3000": 0.9, "arithmetic": 14, "large sums": 6, "letters": 16,
        "comparison": 14, "reverse": 12},
    "mending": _OTHER_END | {
        "among": 40, "near": 14, "tally": 16, "count": 34, "letters": 16, "sort": 20,
        "system prompt": 40, "picture": 70, "copy": 7},
    "tallying": _OTHER_END | {
        "count": 65, "tally": 24, "picture": 95, "kinds": 3, "grid": 4, "copy": 11, "table": 34,
        "reverse": 13, "tool result": 20, "one call": 9, "no call": 8, "system prompt": 14,
        "letters": 10, "among": 8, "near": 5},
    "mean": _OTHER_END | {
        "needle 1000": 1.4, "needle 3000": 0.8, "arithmetic": 11, "large sums": 6, "letters": 18,
        "comparison": 20, "reverse": 15, "picture": 68, "table": 38, "count": 44, "sort": 18,
        "system prompt": 22, "copy": 10, "rows": 6, "tally": 12, "grid": 4, "among": 12,
        "near": 8, "one call": 7, "no call": 8, "tool result": 18},
}  # fmt: skip
DRILLING = tuple(STAGES)[: [*STAGES].index("all")]
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
