"""Arithmetic and comparison: worked out digit by digit in thinking mode, short in instant mode.

thinking   58 + 67: 8 + 7 = 15, write 5, carry 1. 5 + 6 + 1 = 12, write 12. So 125.
instant    8 + 7 = 15                          known by heart; larger numbers show their steps

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
TABLE = 12  # products up to 12 x 12 are known by heart
SMALL = 20  # and sums and differences of numbers up to 20


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
    def key(self) -> str:
        """Products of the table are held out in one order only: the other shows the fact."""
        free = self.op == "*" and self.a <= TABLE and self.a >= self.b
        return "seen" if free else f"{self.a}{self.op}{self.b}"


def arithmetic(draw: Draw) -> Sample:
    """Sums, differences, products."""
    thinking = draw.chance(0.5)
    if thinking:
        sum_ = draw.mine(lambda: _sum(draw), lambda s: s.key)
        question = _asked(draw, sum_)
    else:

        def known() -> tuple[Sum, str]:
            made = _known(draw)
            return made, _asked(draw, made)

        sum_, question = draw.mine(known, lambda made: made[1])
    sign = "×" if sum_.op == "*" else sum_.op
    content = f"{sum_.a} {sign} {sum_.b} = {sum_.value}"
    return said("arithmetic", question, content, steps(sum_) if thinking else None)


def large_sum(draw: Draw) -> Sample:
    """Three digits without thinking: the steps stand in the answer."""
    sum_ = draw.mine(
        lambda: Sum(draw.number(100, 999), draw.pick("+-"), draw.number(100, 999)), lambda s: s.key
    )
    return said("large sums", _asked(draw, sum_), steps(sum_))


def comparison(draw: Draw) -> Sample:
    """Which of two numbers, decimals mostly, is bigger or smaller."""
    a, b = draw.mine(lambda: _pair(draw), lambda pair: "<".join(sorted(pair)))
    bigger = draw.chance(0.65)
    question = natural(draw, draw.pick(BIGGER if bigger else SMALLER).format(a, b))
    answer = a if (float(a) > float(b)) == bigger else b
    word = "bigger" if bigger else "smaller"
    thought = compared(a, b, word) if draw.chance(0.5) else None
    return said("comparison", question, f"{answer} is {word}.", thought)


def steps(sum_: Sum) -> str:
    """The working, digit by digit from the right."""
    if sum_.op == "*":
        return _product(sum_)
    if sum_.op == "-" and sum_.a < sum_.b:
        swapped = Sum(sum_.b, "-", sum_.a)
        return (
            f"{sum_.a} is smaller than {sum_.b}, so it is minus. {steps(swapped)} So {sum_.value}."
        )
    tops, lows = str(sum_.a)[::-1], str(sum_.b)[::-1]
    parts, carry = [], 0
    for place in range(max(len(tops), len(lows))):
        top, low = (int(s[place]) if place < len(s) else 0 for s in (tops, lows))
        part, carry = (_added if sum_.op == "+" else _taken)(top, low, carry)
        parts.append(part)
    if sum_.op == "+" and carry:
        parts.append("1")
    width = len(parts) - (sum_.op == "+" and carry)  # both as long: places then lie alike
    head = f"{sum_.a:0{width}} {sum_.op} {sum_.b:0{width}}"
    return f"{head}: {'. '.join(parts)}. So {abs(sum_.value)}."


def compared(a: str, b: str, word: str) -> str:
    """The working of a comparison: fractions filled with zeros, places from the left."""
    (whole_a, part_a), (whole_b, part_b) = (_places(s) for s in (a, b))
    width = max(len(part_a), len(part_b))
    filled_a, filled_b = part_a.ljust(width, "0"), part_b.ljust(width, "0")
    shown = f"{a} and {b}: " if not width else f"{whole_a}.{filled_a} and {whole_b}.{filled_b}: "
    places = [(whole_a, whole_b), *zip(filled_a, filled_b, strict=True)]
    told = []
    for left, right in places:
        sign = "=" if left == right else "<" if int(left) < int(right) else ">"
        told.append(f"{left} {sign} {right}")
        if sign != "=":
            break
    bigger = float(a) > float(b)
    return f"{shown}{', '.join(told)}. So {a if bigger == (word == 'bigger') else b} is {word}."


def _asked(draw: Draw, sum_: Sum) -> str:
    return natural(draw, draw.pick(ASKED[sum_.op]).format(sum_.a, sum_.b))


def _known(draw: Draw) -> Sum:
    """What is known by heart."""
    op = draw.pick("+-*")
    if op == "*":
        return Sum(draw.number(0, TABLE), "*", draw.number(0, TABLE))
    return _ordered(draw, op, 0, SMALL)


def _sum(draw: Draw) -> Sum:
    """What is worked out: up to three digits."""
    op = draw.pick("++--*")
    if op != "*":
        return _ordered(draw, op, *draw.pick(((0, 99), (10, 999))))
    if draw.chance(0.7):
        return Sum(draw.number(13, 99), "*", draw.number(2, 9))
    return Sum(draw.number(0, TABLE), "*", draw.number(0, TABLE))


def _ordered(draw: Draw, op: str, low: int, high: int) -> Sum:
    """Differences are mostly positive."""
    a, b = draw.number(low, high), draw.number(low, high)
    return Sum(b, op, a) if op == "-" and a < b and draw.chance(0.8) else Sum(a, op, b)


def _added(top: int, low: int, carry: int) -> tuple[str, int]:
    total = top + low + carry
    told = f"{top} + {low}{' + 1' if carry else ''} = {total}"
    return (
        (f"{told}, write {total % 10}, carry 1", 1) if total > 9 else (f"{told}, write {total}", 0)
    )


def _taken(top: int, low: int, borrow: int) -> tuple[str, int]:
    told = f"{top} - {low}{' - 1' if borrow else ''}"
    left = top - low - borrow
    if left < 0:
        again = f"1{top} - {low}{' - 1' if borrow else ''} = {left + 10}"
        return f"{told} < 0, borrow, {again}, write {left + 10}", 1
    return f"{told} = {left}, write {left}", 0


def _product(sum_: Sum) -> str:
    if sum_.a <= TABLE and sum_.b <= TABLE:
        return f"{sum_.a} × {sum_.b} = {sum_.value}."
    tens, ones = divmod(sum_.a, 10)
    high, low = tens * sum_.b * 10, ones * sum_.b
    parts = f"{tens}0 × {sum_.b} = {high}. {ones} × {sum_.b} = {low}"
    return f"{parts}. {high} + {low} = {sum_.value}. So {sum_.value}."


def _pair(draw: Draw) -> tuple[str, str]:
    """Two different numbers as people write them; often with the same whole part."""
    while True:
        whole = draw.number(0, 20)
        if draw.chance(0.2):
            a, b = str(draw.number(0, 999)), str(draw.number(0, 999))
        elif draw.chance(0.75):
            a, b = f"{whole}.{_part(draw)}", f"{whole}.{_part(draw)}"
        else:
            a, b = f"{whole}.{_part(draw)}", f"{draw.number(0, 20)}.{_part(draw)}"
        if float(a) != float(b):
            return a, b


def _part(draw: Draw) -> str:
    digits = draw.number(1, 2) if draw.chance(0.85) else 3
    return "".join(str(draw.number(0, 9)) for _ in range(digits - 1)) + str(draw.number(1, 9))


def _places(text: str) -> tuple[str, str]:
    whole, _, part = text.partition(".")
    return whole, part
