"""Arithmetic and comparison: worked out digit by digit in thinking mode, short in instant mode.

thinking   58 + 67: ones 8+7=15, tens 5+6+1=12. So 125.
           67 - 58: ones 7-8, 17-8=9, tens 6-5-1=0. So 9.       what needs to borrow is seen first
           9.11 and 9.90: 9 is 9, 11 and 90: 90.         of two numbers the one that is asked for
           3.58 and 20.40: 20.40.
instant    8 + 7 = 15                   known by heart; larger numbers show their steps

What is known by heart is held out by its wording, everything else by its numbers.
"""

from dataclasses import dataclass

from nano.data.draw import Draw
from nano.data.sample import Sample, natural, said

ASKED = {
    "+": ("What is {0} + {1}?", "{0} + {1}", "{0}+{1}", "{0} + {1} = ?", "Calculate {0} + {1}.",
        "How much is {0} + {1}?",
          "Add {0} and {1}.", "What is {0} plus {1}?", "What's {0}+{1}?", "{0} plus {1}?",
          "What is the sum of {0} and {1}?",
          "{0}+{1}=?", "Compute {0} + {1}."),
    "-": ("What is {0} - {1}?", "{0} - {1}", "{0}-{1}", "{0} - {1} = ?", "Calculate {0} - {1}.",
        "How much is {0} - {1}?",
          "Subtract {1} from {0}.", "What is {0} minus {1}?", "What's {0}-{1}?", "{0} minus {1}?",
          "{0}-{1}=?",
          "Take {1} away from {0}.", "Compute {0} - {1}."),
    "*": ("What is {0} * {1}?", "{0} * {1}", "{0}*{1}", "{0} x {1}", "Calculate {0} * {1}.",
        "How much is {0} times {1}?",
          "Multiply {0} by {1}.", "What is {0} times {1}?", "What's {0} x {1}?", "{0} times {1}?",
          "{0}*{1}=?", "What is {0} × {1}?"),
}  # fmt: skip
BIGGER = (
    "Which one is bigger, {0} or {1}?", "Which is bigger, {0} or {1}?",
    "Which number is larger: {0} or {1}?", "{0} or {1}, which is bigger?",
    "What is greater, {0} or {1}?", "Which is larger, {0} or {1}?",
    "Compare {0} and {1}: which is bigger?", "Which one is greater, {0} or {1}?",
)  # fmt: skip
SMALLER = (
    "Which one is smaller, {0} or {1}?", "Which is smaller, {0} or {1}?",
    "Which number is less: {0} or {1}?", "{0} or {1}, which is smaller?",
    "What is less, {0} or {1}?", "Compare {0} and {1}: which is smaller?",
)  # fmt: skip
TABLE = 10  # products up to 10 x 10 are known by heart
PLACES = ("ones", "tens")
SMALL = 10  # and sums and differences of numbers up to 20
WHOLE = 20  # the largest whole number of a decimal
LARGEST = 198  # result, of 99 + 99; products stay within


@dataclass(frozen=True, slots=True)
class Sum:
    """Two numbers and what to do with them."""

    a: int
    op: str
    b: int

    @property
    def value(self) -> int:
        """The result."""
        return {"+": self.a + self.b, "-": self.a - self.b, "*": self.a * self.b}[self.op]

    @property
    def sign(self) -> str:
        """The operation as it is written in answers."""
        return "×" if self.op == "*" else self.op

    @property
    def by_heart(self) -> bool:
        """Whether it is a fact to know, not one to work out."""
        return max(self.a, self.b) <= (TABLE if self.op == "*" else SMALL)


def arithmetic(draw: Draw) -> Sample:
    """Sums, differences, products."""
    thinking = draw.chance(0.5)

    def asked() -> tuple[Sum, str]:
        made = _sum(draw) if thinking else known(draw)
        return made, _asked(draw, made)

    sum_, question = draw.mine(asked, _key)
    content = f"{sum_.a} {sum_.sign} {sum_.b} = {sum_.value}"
    return said("arithmetic", question, content, steps(sum_) if thinking else None)


def large_sum(draw: Draw) -> Sample:
    """Two digits without thinking: the steps stand in the answer."""

    def asked() -> tuple[Sum, str]:
        made = _ordered(draw, draw.pick("+-"), SMALL + 1, 99)
        return made, _asked(draw, made)

    sum_, question = draw.mine(asked, _key)
    return said("large sums", question, steps(sum_))


def comparison(draw: Draw) -> Sample:
    """Which of two numbers, decimals mostly, is bigger or smaller."""
    a, b = draw.mine(lambda: _pair(draw), lambda pair: "<".join(sorted(pair)))
    bigger = draw.chance(0.65)
    question = natural(draw, draw.pick(BIGGER if bigger else SMALLER).format(a, b))
    word = "bigger" if bigger else "smaller"
    working, answer = compared(a, b, bigger), f"{chosen(a, b, bigger)} is {word}."
    if draw.chance(0.5):
        return said("comparison", question, answer, working)
    return said("comparison", question, f"{working} {answer}")


def steps(sum_: Sum) -> str:
    """The working, place by place from the right."""
    if sum_.op == "*" and sum_.a <= TABLE and sum_.b <= TABLE:
        return f"{sum_.a} × {sum_.b} = {sum_.value}."
    tops, lows = str(sum_.a)[::-1], str(sum_.b)[::-1]
    parts, carry = [], 0
    for place in range(len(tops) if sum_.op == "*" else max(len(tops), len(lows))):
        top = int(tops[place]) if place < len(tops) else 0
        low = int(lows[place]) if place < len(lows) else 0
        if sum_.op == "*":
            part, carry = _multiplied(top, sum_.b, carry)
        else:
            part, carry = (_added if sum_.op == "+" else _taken)(top, low, carry)
        parts.append(f"{PLACES[place]} {part}")
    return f"{sum_.a} {sum_.sign} {sum_.b}: {', '.join(parts)}. So {sum_.value}."


def compared(a: str, b: str, bigger: bool) -> str:
    """The working of a comparison: fractions of the same width, looked at if they decide."""
    (whole_a, part_a), (whole_b, part_b) = (_places(s) for s in (a, b))
    width = max(len(part_a), len(part_b))
    part_a, part_b = part_a.ljust(width, "0"), part_b.ljust(width, "0")
    if width:
        a, b = f"{whole_a}.{part_a}", f"{whole_b}.{part_b}"
    if whole_a != whole_b:
        return f"{choice(a, b, bigger)}."
    return f"{a} and {b}: {whole_a} is {whole_b}, {choice(part_a, part_b, bigger)}."


def choice(a: str, b: str, bigger: bool) -> str:
    """One look at two numbers, e.g. "11 and 90: 90"."""
    return f"{a} and {b}: {chosen(a, b, bigger)}"


def chosen(a: str, b: str, bigger: bool) -> str:
    """The bigger or smaller of two different numbers."""
    return a if (float(a) > float(b)) == bigger else b


def _key(made: tuple[Sum, str]) -> str:
    """A fact is held out in some wordings, everything else in all."""
    sum_, question = made
    return question if sum_.by_heart else f"{sum_.a}{sum_.op}{sum_.b}"


def _asked(draw: Draw, sum_: Sum) -> str:
    return natural(draw, draw.pick(ASKED[sum_.op]).format(sum_.a, sum_.b))


def known(draw: Draw) -> Sum:
    """What is known by heart."""
    op = draw.pick("+-*")
    if op == "*":
        return Sum(draw.number(0, TABLE), "*", draw.number(0, TABLE))
    made = _ordered(draw, op, 0, SMALL)
    return Sum(made.b, op, made.a) if op == "-" and draw.chance(0.2) else made


def _sum(draw: Draw) -> Sum:
    """What is worked out: up to two digits, and products of few."""
    op = draw.pick("++--*")
    if op != "*":
        return _ordered(draw, op, 0, 99)
    if draw.chance(0.7):
        by = draw.number(2, 9)
        return Sum(draw.number(11, min(99, LARGEST // by)), "*", by)
    return Sum(draw.number(0, TABLE), "*", draw.number(0, TABLE))


def _ordered(draw: Draw, op: str, low: int, high: int) -> Sum:
    """Differences are positive; only those known by heart may be negative."""
    a, b = draw.number(low, high), draw.number(low, high)
    return Sum(b, op, a) if op == "-" and a < b else Sum(a, op, b)


def _added(top: int, low: int, carry: int) -> tuple[str, int]:
    total = top + low + carry
    return f"{top}+{low}{'+1' if carry else ''}={total}", total // 10


def _taken(top: int, low: int, borrow: int) -> tuple[str, int]:
    taken = f"-{low}{'-1' if borrow else ''}"
    rest = top - low - borrow
    if rest < 0:
        return f"{top}{taken}, {top + 10}{taken}={rest + 10}", 1
    return f"{top}{taken}={rest}", 0


def _multiplied(top: int, by: int, carry: int) -> tuple[str, int]:
    product = top * by
    total = product + carry
    return f"{top}×{by}={product}{f', {product}+{carry}={total}' if carry else ''}", total // 10


def _pair(draw: Draw) -> tuple[str, str]:
    """Two different numbers as people write them; often with the same whole part."""
    while True:
        whole = draw.number(0, WHOLE)
        if draw.chance(0.2):
            a, b = str(draw.number(0, 99)), str(draw.number(0, 99))
        elif draw.chance(0.75):
            a, b = decimal(draw, whole), decimal(draw, whole)
        else:
            a, b = decimal(draw, whole), decimal(draw, draw.number(0, WHOLE))
        if float(a) != float(b):
            return a, b


def decimal(draw: Draw, whole: int) -> str:
    """A number with one or two digits behind its point, the last one not 0."""
    tens = str(draw.number(0, 9)) if draw.chance(0.5) else ""
    return f"{whole}.{tens}{draw.number(1, 9)}"


def _places(text: str) -> tuple[str, str]:
    whole, _, part = text.partition(".")
    return whole, part
