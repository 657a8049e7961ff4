"""Whether each step of a working is right by itself, and follows from the question.

Shares nothing with nano/data. Each checker takes (question, working); a working may have the answer
behind it.
"""

import operator
import re

from tests.nano.answers import ask_line, items

SIGNS = {"+": operator.add, "-": operator.sub, "×": operator.mul}
# The two places that a step looks at, for three and for four items.
NETWORKS = {3: ("01", "12", "01"), 4: ("01", "23", "02", "13", "12")}


def summed(question, working):
    """Place by place, as column arithmetic has it; what is known by heart has no places."""
    a, sign, b = re.match(r"(\d+) ([-+×]) (\d+)", working).groups()
    a, b = int(a), int(b)
    value = SIGNS[sign](a, b)
    if {*map(int, re.findall(r"\d+", question))} != {a, b}:
        return False
    if ":" not in working:
        return working.rstrip(".") == f"{a} {sign} {b} = {value}"
    places = {"+": _added, "-": _taken, "×": _multiplied}[sign](a, b)
    told = ", tens ".join(places)
    return working == f"{a} {sign} {b}: ones {told}. So {value}."


def _added(a, b):
    ones = a % 10 + b % 10
    yield f"{a % 10}+{b % 10}={ones}"
    if max(a, b) > 9:
        carry = ones > 9
        yield f"{a // 10}+{b // 10}{'+1' * carry}={a // 10 + b // 10 + carry}"


def _taken(a, b):
    lent = a % 10 < b % 10
    seen = f"{a % 10}-{b % 10}, 1" * lent
    yield f"{seen}{a % 10}-{b % 10}={a % 10 + 10 * lent - b % 10}"
    if a > 9:
        yield f"{a // 10}-{b // 10}{'-1' * lent}={a // 10 - b // 10 - lent}"


def _multiplied(a, b):
    ones, tens = a % 10 * b, a // 10 * b
    yield f"{a % 10}×{b}={ones}"
    if a > 9:
        carry = ones // 10
        yield f"{a // 10}×{b}={tens}" + (f", {tens}+{carry}={tens + carry}" if carry else "")


def compared(question, working):
    """Each step puts two places in order; in the end all of them are."""
    down = re.search(r"large to|descend|largest|high to", question, re.IGNORECASE)
    given = items(question)
    key = int if given[0].isdigit() else str
    down = bool(down) and key is int
    steps = working.partition(" So ")[0].rstrip(".").split(". ")
    if len(steps) != len(NETWORKS[len(given)]):
        return False
    for step, places in zip(steps, NETWORKS[len(given)], strict=True):
        upper, lower = map(int, places)
        pair = [given[upper], given[lower]]
        given[upper], given[lower] = sorted(pair, key=key, reverse=down)
        told = f"{' and '.join(pair)}: {given[upper]} {'<>'[down]} {given[lower]}"
        if step != told:
            return False
    return given == sorted(given, key=key, reverse=down)


def counted(question, working):
    """The items as they were given; the number behind each counts one kind only, from 0 or 1."""
    listed, _, told = working.partition(". So ")
    parts = [part.split() for part in listed.split(", ")]
    if re.match(r"\d+ \w+(, |$)", listed):  # all of them: the number stands before its item
        right = [number for number, _ in parts] == [str(n + 1) for n in range(len(parts))]
        return (
            right
            and ", ".join(item for _, item in parts) in question
            and told == f"{parts[-1][0]}."
        )
    return ", ".join(item for item, _ in parts) in question and _rising(parts, told)


def _rising(parts, told):
    before, kinds = 0, {True: set(), False: set()}
    for item, number in parts:
        kinds[int(number) > before].add(item)
        if int(number) - before not in (0, 1):
            return False
        before = int(number)
    return len(kinds[True]) <= 1 and not kinds[True] & kinds[False] and told == f"{before}."


def lettered(question, working):
    """The same of the letters of the word, or the letters alone."""
    if "So" not in working:
        return working.replace(" ", "") in question
    listed, _, told = working.partition(". So ")
    parts = [part.split() for part in listed.split(", ")]
    return "".join(letter for letter, _ in parts) in question and _rising(parts, told)


def row_told(question, working):
    """In thinking mode the whole row: all its cells, of the name that is asked for."""
    name, _, told = working.rstrip(".").partition(": ")
    if name.lower() not in ask_line(question).lower():
        return False
    cells = [pair.rpartition(" ")[::2] for pair in told.split(", ")]
    for line in question.replace(". ", "\n").split("\n"):
        if line == f"{name} | " + " | ".join(value for _, value in cells):
            return f"name | {' | '.join(field for field, _ in cells)}" in question
        if line.rstrip(".") in (f"{name}: {told}", f"{name} has {told}"):
            return True
    return False


WORKINGS = {
    "arithmetic": summed, "large sums": summed, "sort": compared, "count": counted,
    "letters": lettered, "table": row_told,
}  # fmt: skip
