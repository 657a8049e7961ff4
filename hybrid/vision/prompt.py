"""A prompt with pictures in it: one placeholder becomes as many rows as its item has tokens.

    ids        … 163603 163605 163604 …               one <|media_pad|> an item
    expanded   … 163603 163605 163605 163605 163604 …  and which item those rows show
    identity   … 163603   a      a      a    163604 …  a: digest of the item

This is the one place where placeholders are expanded. `identity` is what the KV cache compares:
two prompts that differ in a picture alone have equal ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hybrid.errors import RequestError
from hybrid.vision.media import Item


@dataclass(frozen=True, slots=True)
class Placed:
    """An item and the rows of the prompt that it fills."""

    start: int
    item: Item
    digest: bytes

    @property
    def end(self) -> int:
        """The first row behind it."""
        return self.start + self.item.tokens


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids as they go through the model, and what stands in the rows of its media."""

    ids: list[int]
    media: tuple[Placed, ...] = ()  # in order of their rows

    def identity(self) -> list[int | bytes]:
        """What each row stands for: its token id, or the digest of the item that it is part of."""
        rows: list[int | bytes] = list(self.ids)
        for placed in self.media:
            rows[placed.start : placed.end] = [placed.digest] * placed.item.tokens
        return rows

    def media_from(self, row: int) -> list[Placed]:
        """The media that have rows from `row` on."""
        return [placed for placed in self.media if placed.end > row]


def expanded(ids: Sequence[int], placeholder: int | None, items: Sequence[Item]) -> Prompt:
    """Give every placeholder id, in order, the rows of an item; RequestError if numbers differ."""
    found = sum(token == placeholder for token in ids)
    if found != len(items):
        raise RequestError(
            f"the prompt has {found} media placeholders for {len(items)} images or chunks of "
            "video; give one for each",
            "images",
        )
    rows: list[int] = []
    media: list[Placed] = []
    left = iter(items)
    for token in ids:
        if token != placeholder:
            rows.append(token)
            continue
        item = next(left)
        media.append(Placed(len(rows), item, item.digest))
        rows += [token] * item.tokens
    return Prompt(rows, tuple(media))
