"""Rows of several conversations as one batch: packed for all layers, padded for attention alone.

    ids        a a a a b b b c c         [n]   everything but attention sees this
    positions  0 1 2 3 0 1 2 0 1         [n]
    blocks     ------------- ---               neighbours of about the same length
    slots      0 1 2 3 4 5 6 0 1               where a row lies in its block's [sequences, longest]

A padded place holds zeros and, lying behind its sequence, is never attended to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid.vision.media import Item

ALIKE = 0.8  # of the other's length: padding costs its square, a block of its own some 0.1 ms


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation: ids after media expansion, what to learn, and its pictures."""

    task: str
    ids: Sequence[int]
    weight: Sequence[float]  # of predicting ids[i]; 0 is not learnt
    media: tuple[tuple[int, Item], ...] = ()  # (first row, what it shows)


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring sequences that attention pads to the longest of them."""

    slots: Tensor  # int64, place of each row in [sequences * longest]
    padded: tuple[int, int]  # sequences, longest


@dataclass(frozen=True, slots=True)
class Batch:
    """Several rows, ready for the graph."""

    ids: Tensor  # int64 [n]
    positions: Tensor  # int64 [n]
    blocks: tuple[Block, ...]  # all rows, in order
    sources: Tensor  # int64 [m], rows that predict
    targets: Tensor  # int64 [m], what they should predict
    weights: Tensor  # float32 [m]
    owners: Tensor  # int64 [m], the conversation of each
    media: tuple[tuple[int, Item], ...]  # (row of the batch, what it shows)


def batch(rows: Sequence[Row]) -> Batch:
    """Put conversations together; at least one."""
    lengths = [len(row.ids) for row in rows]
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    ids = torch.tensor([token for row in rows for token in row.ids])
    positions = torch.cat([torch.arange(n) for n in lengths])
    owners = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths))
    weights = torch.tensor([each for row in rows for each in row.weight], dtype=torch.float32)
    learnt = ((weights > 0) & (positions > 0)).nonzero()[:, 0]
    media = tuple(
        (start + at, item)
        for start, row in zip(starts[:-1], rows, strict=True)
        for at, item in row.media
    )
    return Batch(
        ids=ids,
        positions=positions,
        blocks=tuple(_blocks(lengths)),
        sources=learnt - 1,
        targets=ids[learnt],
        weights=weights[learnt],
        owners=owners[learnt],
        media=media,
    )


def _blocks(lengths: Sequence[int]) -> Iterator[Block]:
    """Cut neighbours apart where one is much shorter or longer than the first of its block."""
    first = 0
    for index in range(1, len(lengths) + 1):
        if index < len(lengths) and _alike(lengths[index], lengths[first]):
            continue
        block = lengths[first:index]
        longest = max(block)
        slots = torch.cat([torch.arange(n) + at * longest for at, n in enumerate(block)])
        yield Block(slots, (len(block), longest))
        first = index


def _alike(length: int, other: int) -> bool:
    return min(length, other) >= ALIKE * max(length, other)
