"""What the tower has seen, remembered by content: a picture that comes again costs nothing.

    items -> digests -> known? -> rows
                           no -> passes of at most PASS_PATCHES -> tower -> rows, kept

The KV cache spares a picture as long as nothing in front of it changes. This one spares it when the
rows have to be computed again, or when it comes twice.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hybrid.progress import Progress, ProgressSink, ignore
from hybrid.vision.media import Item
from hybrid.vision.media_config import MediaConfig
from hybrid.vision.prompt import Placed

PASS_PATCHES = 16_384  # that go through the tower together; one item may have more
CACHE_BYTES = 512 << 20

Rows = NDArray[np.float32]  # [tokens of an item, hidden_size]


class Tower(Protocol):
    """What turns items into rows: `hybrid.vision.tower.Tower` is one."""

    def features(
        self, items: Sequence[Item], poll: Callable[[], None] = lambda: None
    ) -> list[Rows]:
        """Rows of each item. `poll` is called now and then and may raise to abandon."""


@dataclass(slots=True)
class Seen:
    """What looking has cost since the model was loaded."""

    items: int = 0  # that were asked for
    patches: int = 0  # that went through the tower
    seconds: float = 0.0


class Features:
    """A tower, how pictures are prepared for it, and what it made of the last ones."""

    def __init__(self, tower: Tower, media: MediaConfig, cache_bytes: int = CACHE_BYTES) -> None:
        self.media = media
        self.seen = Seen()
        self._tower = tower
        self._limit = cache_bytes
        self._kept: OrderedDict[bytes, Rows] = OrderedDict()  # the last one used is the last
        self._bytes = 0

    def of(
        self,
        media: Sequence[Placed],
        poll: Callable[[], None] = lambda: None,
        sink: ProgressSink = ignore,
    ) -> list[Rows]:
        """Rows of all media, in order. Whatever a pass has made is kept if a later one fails."""
        began = perf_counter()
        found = {p.digest: rows for p in media if (rows := self._recall(p.digest)) is not None}
        missing = {p.digest: p.item for p in media if p.digest not in found}
        total, done = sum(map(_patches, missing.values())), 0
        try:
            for digests in _passes(missing):
                sink(Progress("vision", done, total, "patches"))
                items = [missing[digest] for digest in digests]
                for digest, rows in zip(digests, self._tower.features(items, poll), strict=True):
                    found[digest] = rows
                    self._keep(digest, rows)
                done += sum(map(_patches, items))
                sink(Progress("vision", done, total, "patches"))
        finally:
            self.seen.items += len(media)
            self.seen.patches += done
            self.seen.seconds += perf_counter() - began
        return [found[p.digest] for p in media]

    def _recall(self, digest: bytes) -> Rows | None:
        rows = self._kept.get(digest)
        if rows is not None:
            self._kept.move_to_end(digest)
        return rows

    def _keep(self, digest: bytes, rows: Rows) -> None:
        """Remember rows and forget the oldest; what is larger than the cache is not kept."""
        if rows.nbytes > self._limit:
            return
        self._kept[digest] = rows
        self._bytes += rows.nbytes
        while self._bytes > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.nbytes


def _patches(item: Item) -> int:
    return len(item.patches)


def _passes(items: dict[bytes, Item]) -> Iterator[list[bytes]]:
    """Digests in passes of at most PASS_PATCHES, in order; a large item goes alone."""
    together: list[bytes] = []
    size = 0
    for digest, item in items.items():
        if together and size + _patches(item) > PASS_PATCHES:
            yield together
            together, size = [], 0
        together.append(digest)
        size += _patches(item)
    if together:
        yield together
