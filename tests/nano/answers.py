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
    a, b = map(Decimal, re.findall(r"\d+(?:\.\d+)?", question))
    up = re.search(r"bigger|larger|greater", question, re.IGNORECASE)
    return Decimal(answer.split()[0]) == (max if up else min)(a, b)


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
    return items(answer) == sorted(found, key=key, reverse=bool(down))


def count(question, answer):
    times = re.search(
        r"(?:does|often is|count|many) (\w+) (?:appear|in|are there)\b", question, re.IGNORECASE
    )
    listed = items(question.partition(":")[2])
    if times and times[1] in WORDS:
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
    told = re.findall(r"(?:of|for) the (\w+) is (\d+)|The (\w+) has the number (\d+)", question)
    known = {a or c: b or d for a, b, c, d in told}
    ask = re.search(r"(?:of|for|has) the (\w+)", _ask_line(question))
    return known[ask[1]] == re.findall(r"\d+", answer)[-1]


def _ask_line(question):
    first, *_, last = question.split("\n")
    return min((first, last), key=len)


CHECKERS = {
    "arithmetic": arithmetic, "large sums": arithmetic, "comparison": comparison, "copy": copy,
    "reverse": reverse, "sort": sort, "count": count, "letters": letters, "needle 200": needle,
    "needle 1000": needle,
}  # fmt: skip
