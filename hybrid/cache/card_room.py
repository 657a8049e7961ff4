"""What cards have for experts once everything else has its place: pure arithmetic on bytes.

    first card    backbone, KV cache, scratch | ring | rows of a pass | slots
    others                                    | ring | rows of a pass | slots

A card takes part if it has room for a ring that streamed records pass through and for the rows of
one pass of a prompt. Without the first, which sums, none does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

RING = 32  # records of it on each card; of K2.5 0.8 GB


@dataclass(frozen=True, slots=True)
class CardRoom:
    """Who takes part, and with how much."""

    cards: tuple[int, ...]  # numbers of the cards that take part; none: experts stay off all
    memory: tuple[int, ...]  # bytes for slots, of each of these
    working: int  # bytes of ring and rows on each of these
    slots: int  # records that all of them hold together


def card_room(
    free: Sequence[int],
    *,
    record_bytes: int,
    records: int,
    hidden: int,
    per_token: int,
    pass_tokens: int,
    budget: int | None,
) -> CardRoom:
    """Share out `free` bytes of each card, beside what must be there; the first has the backbone.

    `budget`: bytes of all slots together, None: all there is room for. A pass has `pass_tokens`
    tokens, each `per_token` rows of `hidden` float32.
    """
    x = pass_tokens * hidden * 4
    rows = per_token * x
    # one card: rows, and x and rows of the CPU on their way; of several, rows under way as well
    working = RING * record_bytes + (rows + 2 * x if len(free) == 1 else 2 * rows + 2 * x)
    cards = tuple(card for card, nbytes in enumerate(free) if nbytes >= working)
    if not records or 0 not in cards:
        return CardRoom((), (), working, 0)
    spare = (len(cards) - 1) * record_bytes  # slots are dealt whole: the first gets what is left
    if free[0] < working + spare:
        cards, spare = (0,), 0
    memory = (free[0] - working - spare, *(free[card] - working for card in cards[1:]))
    slots = sum(memory) // record_bytes
    if budget is not None:
        slots = min(slots, budget // record_bytes)
    return CardRoom(cards, memory, working, min(slots, records))
