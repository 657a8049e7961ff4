"""What the answer to a generated question must be, worked out anew from the words of the question.

Shares nothing with nano/data but its lists of words. Each checker takes (question, answer text).
"""

import re
from decimal import Decimal

from nano.data.words import CITIES, LETTERED, NAMES, WORDS

ITEM = re.compile(r"\b(?:" + "|".join([*NAMES, *CITIES, *WORDS]) + r"|\d+|[a-z])\b")
LETTER = re.compile(
    r"letters? ([a-z])\b|\b([a-z])'s\b|\b([a-z]) (?:are|in|appear)\b|is ([a-z]) in", re.IGNORECASE
)
DECIMAL = r"\d+(?:\.\d+)?"
WORKING = re.compile(
    rf"({DECIMAL}) and ({DECIMAL}): (?:(\d+) is \3, (\d+) and (\d+): )?({DECIMAL})"
)  # filled up, the same whole part and the fractions, what decides
FIELD = r"age|city|colour|pet|fruit|price|score"
ROW = re.compile(rf"\w+ \||\w+(?::| has) (?:{FIELD}) \w")
TOLD = re.compile(r"number of the (\w+) is (\d+)")


def arithmetic(question, answer):
    a, b = map(int, re.findall(r"\d+", question))
    if re.search(r"subtract|take", question, re.IGNORECASE):
        a, b = b, a
    if re.search(r"\*| x |×|times|multiply", question, re.IGNORECASE):
        value = a * b
    elif re.search(r"-|minus|subtract|take", question, re.IGNORECASE):
        value = a - b
    else:
        value = a + b
    return int(re.findall(r"-?\d+", answer)[-1]) == value


def comparison(question, answer):
    a, b = re.findall(r"\d+(?:\.\d+)?", question)
    up = re.search(r"bigger|larger|greater", question, re.IGNORECASE)
    found = (max if up else min)(a, b, key=Decimal)
    working, _, last = answer.rpartition(". ")
    if working and not _compared(WORKING.fullmatch(working), a, b, up):
        return False
    return last.split()[0] == found


def _compared(working, a, b, up):
    """The two as they are filled up, and which of them, or of their fractions, it is."""
    if working is None:
        return False
    left, right, _, *parts, found = (each and Decimal(each) for each in working.groups())
    looked = (left, right) if parts == [None, None] else tuple(parts)
    return (left, right) == (Decimal(a), Decimal(b)) and found == (max if up else min)(looked)


def items(text):
    return ITEM.findall(text)


def copy(question, answer):
    return question.endswith(answer)


def reverse(question, answer):
    return items(answer) == items(question)[::-1]


def sort(question, answer):
    found, down = (
        items(question),
        re.search(r"large to|descend|largest|high to", question, re.IGNORECASE),
    )
    key = int if found[0].isdigit() else str
    behind = answer.rpartition("So ")[2]
    return items(behind) == sorted(found, key=key, reverse=bool(down))


def count(question, answer):
    times = re.search(
        r"(?:does|often is|count|many) (\w+) (?:appear|in|are there)\b", question, re.IGNORECASE
    )
    listed = items(question.partition(":")[2])
    if times and (times[1] in WORDS or len(times[1]) == 1):
        listed = [one for one in (listed or items(question)) if one == times[1]]
    return int(re.findall(r"\d+", answer)[-1]) == len(listed)


def letters(question, answer):
    word = next(w for w in re.findall(r"[a-z]+", question.lower())[::-1] if w in LETTERED)
    one = LETTER.search(question)
    if one:
        wanted = next(filter(None, one.groups()))
        return int(re.findall(r"\d+", answer)[-1]) == word.count(wanted)
    return answer == " ".join(word)


def needle(question, answer):
    known = dict(TOLD.findall(question))
    ask = re.search(r"(?:of|has) the (\w+)", ask_line(question))
    return known[ask[1]] == re.findall(r"\d+", answer)[-1]


def table(question, answer):
    """The cell whose row and whose field are asked for; `answer` ends with its value."""
    asked, lines = ask_line(question), question.replace(". ", "\n").split("\n")
    name = next(name for name in NAMES if re.search(rf"\b{name}\b", asked, re.IGNORECASE))
    field = re.search(FIELD, asked)[0]
    row = next(line for line in lines if line.startswith(name) and ROW.match(line))
    value = answer.rstrip(".").split()[-1]
    if "|" in row:
        heads = next(line for line in lines if line.startswith("name |")).split(" | ")
        return row.split(" | ")[heads.index(field)] == value
    return bool(re.search(rf"\b{field} {value}\b", row))


def ask_line(question):
    """The question stands behind what it is about, or before it."""
    first, *_, last = question.split("\n")
    return first if ROW.match(last) or TOLD.search(last) else last


CHECKERS = {
    "arithmetic": arithmetic, "large sums": arithmetic, "comparison": comparison, "copy": copy,
    "reverse": reverse, "sort": sort, "count": count, "letters": letters, "needle 200": needle,
    "needle 1000": needle, "table": table,
}  # fmt: skip
