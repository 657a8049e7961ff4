"""A step's conversations as passes of similar length, so that little is padding."""

from collections.abc import Iterator, Sequence
from math import ceil

from nano.model.batch import Row

SLACK = 1.04  # of an even share: rows do not fill a pass to the last token


def passes(rows: Sequence[Row], most: int) -> Iterator[list[Row]]:
    """Cut rows, the longest first, into groups of at most `most` padded tokens (or of one row)."""
    group: list[Row] = []
    for row in sorted(rows, key=lambda r: len(r.ids), reverse=True):
        if group and (len(group) + 1) * len(group[0].ids) > most:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def dealt(rows: Sequence[Row], most: int, threads: int) -> list[list[list[Row]]]:
    """Passes of each thread; the threads get about the same tokens, in rows of the same lengths."""
    ordered = sorted(rows, key=lambda r: len(r.ids), reverse=True)
    return [list(passes(mine, _even(mine, most))) for mine in _turns(ordered, threads)]


def _turns(rows: Sequence[Row], threads: int) -> list[list[Row]]:
    """Each row to whoever has the fewest tokens so far."""
    made: list[list[Row]] = [[] for _ in range(threads)]
    tokens = [0] * threads
    for row in rows:
        least = tokens.index(min(tokens))
        made[least].append(row)
        tokens[least] += len(row.ids)
    return made


def _even(rows: Sequence[Row], most: int) -> int:
    """What a pass should hold so that the last one is no remnant."""
    total = sum(len(row.ids) for row in rows)
    return ceil(total / max(1, ceil(total / most)) * SLACK)
