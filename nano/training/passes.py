"""A step's conversations as passes of similar length, so that little is padding."""

from collections.abc import Iterator, Sequence

from nano.model.batch import Row


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
