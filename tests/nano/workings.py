"""Whether each step of a working is right by itself, and follows from the question.

Shares nothing with nano/data. Each checker takes (question, working); a working may have the answer
behind it.
"""

import operator
import re

from tests.nano.answers import ask_line, items

SIGNS = {"+": operator.add, "-": operator.sub, "×": operator.mul}
LOOK = re.compile(r"(\w+) and (\w+): (\w+)")


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


def merged(question, working):
    """Pairs in order; then of each two the right one, both at the front of what is left."""
    down = re.search(r"large to|descend|largest|high to", question, re.IGNORECASE)
    given = items(question)
    pick = (max if down else min) if given[0].isdigit() else min
    key = int if given[0].isdigit() else str
    pairs, looks = working.partition(" So ")[0].rstrip(".").split(". ")
    sign = " > " if down and key is int else " < "
    left, right = (part.split(": ")[-1].split(sign) for part in pairs.split(", "))
    if [*left, *right] != [*_in_order(given[:2], pick, key), *_in_order(given[2:], pick, key)]:
        return False
    for look in looks.split(", "):
        if not left or not right:
            return False
        a, b, found = LOOK.fullmatch(look).groups()
        if (a, b, found) != (left[0], right[0], pick(a, b, key=key)):
            return False
        (left if found == a else right).pop(0)
    return not left or not right


def _in_order(pair, pick, key):
    first = pick(pair, key=key)
    return [first, *(one for one in pair if one != first)]


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
    "arithmetic": summed, "large sums": summed, "sort": merged, "count": counted,
    "letters": lettered, "table": row_told,
}  # fmt: skip
