"""How tokens begin: those that have something in common are neighbours from the first step.

    358       3 at the hundreds + 5 at the tens + 8 at the ones, and how large it is
    " city"   the word city + a space before it, and how late c is in the alphabet
              likewise "city", ".city", " City"
    all       one direction more, shared: what a head needs to look at distances alone

A model of many words learns this from them. One that sees a number a hundred times is told.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hybrid.chat.vocabulary import Vocabulary

STD = 0.5  # of an embedding, and of the shared direction
PLACE = 0.36  # share of the variance that a digit has
WORD, FORM = 0.6, 0.15  # and a word, and its form
SIZE = INITIAL = 0.15  # and what numbers and words are ordered by


def embedding(vocabulary: Vocabulary, hidden: int, random: torch.Generator) -> Tensor:
    """Draw [vocab, hidden] float32."""
    parts: dict[str, Tensor] = {}

    def part(name: str) -> Tensor:
        if name not in parts:
            parts[name] = torch.randn(hidden, generator=random)
        return parts[name]

    count = len(vocabulary.base) + len(vocabulary.special)
    made = torch.randn(count, hidden, generator=random)
    for row, token in zip(made, vocabulary.base, strict=False):
        _begin(row, token.decode(errors="ignore"), part)
    return STD * (made + torch.randn(hidden, generator=random))


def _begin(row: Tensor, text: str, part: Callable[[str], Tensor]) -> None:
    """Give a row what it shares with others; what is its own shrinks."""
    if text.isdecimal() and text.isascii():
        shared = {f"digit {digit} at {n}": PLACE for n, digit in enumerate(reversed(text))}
        most = 999 if len(text) == 3 else 99
        order, share, at = f"size to {most}", SIZE, int(text) / most
    elif (word := text.lstrip(" ._")).isascii() and word.isalpha():
        form = f"behind {text[: len(text) - len(word)]!r} {word.istitle()}"
        shared = {f"word {word.lower()}": WORD, form: FORM}
        order, share, at = "alphabet", INITIAL, (ord(word[0].lower()) - ord("a")) / 25
    else:
        return
    row *= math.sqrt(max(0.05, 1 - share - sum(shared.values())))
    for name, each in shared.items():
        row += math.sqrt(each) * part(name)
    row += math.sqrt(12 * share) * (at - 0.5) * part(order)  # of that variance on average
