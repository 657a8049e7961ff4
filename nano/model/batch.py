"""Rows of several conversations as one batch: packed for all layers, padded for attention alone.

    ids        a a a b b c c c c         [n]   everything but attention sees this
    slots      0 1 2 4 5 8 9 10 11       [n]   where a row lies in [sequences, longest]
    positions  0 1 2 0 1 0 1 2 3         [n]

A padded place holds zeros and, lying behind its sequence, is never attended to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid.vision.media import Item


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation: ids after media expansion, what to learn, and its pictures."""

    task: str
    ids: Sequence[int]
    weight: Sequence[float]  # of predicting ids[i]; 0 is not learnt
    media: tuple[tuple[int, Item], ...] = ()  # (first row, what it shows)


@dataclass(frozen=True, slots=True)
class Batch:
    """Several rows, ready for the graph."""

    ids: Tensor  # int64 [n]
    positions: Tensor  # int64 [n]
    slots: Tensor  # int64 [n]
    padded: tuple[int, int]  # sequences, longest
    sources: Tensor  # int64 [m], rows that predict
    targets: Tensor  # int64 [m], what they should predict
    weights: Tensor  # float32 [m]
    owners: Tensor  # int64 [m], the conversation of each
    media: tuple[tuple[int, Item], ...]  # (row of the batch, what it shows)


def batch(rows: Sequence[Row]) -> Batch:
    """Put conversations together; at least one."""
    lengths = [len(row.ids) for row in rows]
    longest = max(lengths)
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
        slots=owners * longest + positions,
        padded=(len(rows), longest),
        sources=learnt - 1,
        targets=ids[learnt],
        weights=weights[learnt],
        owners=owners[learnt],
        media=media,
    )
