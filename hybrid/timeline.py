"""One sequence of tokens and the rows of the KV cache that belong to it.

The caller always passes the whole prompt; the timeline works out what it already knows:

    known tokens   a b c d e f
    new prompt     a b c x y        ->  rows of a b c are reused, x y are computed

Rows of a picture are known by its content, not by the placeholder's token id.

A row counts only once its whole block is through all layers, so that a cancelled prefill leaves the
timeline shorter, never wrong.
"""

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hybrid.backbone import Stream
from hybrid.errors import ContextTooLongError
from hybrid.model import Model
from hybrid.progress import Progress, ProgressSink, ignore
from hybrid.vision.prompt import Placed, Prompt

Pictures = list[tuple[Placed, NDArray[np.float32]]]


class Timeline:
    """What is in the cache, row by row: a token id, or the digest of a picture."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._lock = threading.Lock()  # blocks of two callers must not interleave
        self.tokens: list[int | bytes] = []

    @property
    def capacity(self) -> int:
        """Positions that the KV cache holds."""
        return self.model.backbone.kv_tokens

    def prefill(
        self,
        prompt: Prompt,
        poll: Callable[[], None] = lambda: None,
        sink: ProgressSink = ignore,
    ) -> tuple[NDArray[np.float32], int]:
        """Make the timeline equal `prompt`; returns the last token's logits and the reused tokens.

        The last token is always computed: its logits are not kept. Pictures are looked at only if
        rows of theirs are missing.
        """
        self._require_room(prompt)
        with self._lock:
            return self._prefill(prompt, poll, sink)

    def all_logits(self, prompt: Prompt) -> NDArray[np.float32]:
        """Logits of every position of a fresh sequence: [len(prompt.ids), vocab_size]."""
        self._require_room(prompt)
        logits = np.empty((len(prompt.ids), self.model.text.vocab_size), np.float32)
        with self._lock:
            self.tokens.clear()
            pictures = self._look(prompt, 0, lambda: None, ignore)
            for x in self._blocks(prompt.ids, prompt.identity(), pictures, lambda: None):
                end = len(self.tokens)
                logits[end - len(x) : end] = self.model.logits(x)
        return logits

    def step(self, token_id: int, poll: Callable[[], None] = lambda: None) -> NDArray[np.float32]:
        """Append one token; returns the logits of the next: [vocab_size]."""
        with self._lock:
            x = self.model.forward([token_id], len(self.tokens), poll)
            self.tokens.append(token_id)
            logits: NDArray[np.float32] = self.model.logits(x)[0]
            return logits

    def _prefill(
        self, prompt: Prompt, poll: Callable[[], None], sink: ProgressSink
    ) -> tuple[NDArray[np.float32], int]:
        poll()
        identity = prompt.identity()
        cached = min(self._common_prefix(identity), len(identity) - 1)
        del self.tokens[cached:]
        missing = len(identity) - cached
        pictures = self._look(prompt, cached, poll, sink)
        sink(Progress("prefill", 0, missing, "tokens"))
        last: Stream = None
        for x in self._blocks(prompt.ids, identity, pictures, poll):
            last = self.model.backbone.last(x)
            sink(Progress("prefill", len(self.tokens) - cached, missing, "tokens"))
        logits: NDArray[np.float32] = self.model.logits(last)[0]
        return logits, cached

    def _look(
        self, prompt: Prompt, row: int, poll: Callable[[], None], sink: ProgressSink
    ) -> Pictures:
        """What the tower sees of the pictures that have rows from `row` on."""
        if not (media := prompt.media_from(row)):
            return []
        assert self.model.vision is not None
        return list(zip(media, self.model.vision.of(media, poll, sink), strict=True))

    def _blocks(
        self,
        ids: list[int],
        identity: list[int | bytes],
        pictures: Pictures,
        poll: Callable[[], None],
    ) -> Iterator[Stream]:
        """Run what is missing of a prompt, a block at a time."""
        while (start := len(self.tokens)) < len(identity):
            end = min(start + self.model.backbone.max_block, len(identity))
            inside = list(_inside(pictures, start, end))
            x = self.model.forward(ids[start:end], start, poll, inside)
            self.tokens += identity[start:end]
            yield x

    def _require_room(self, prompt: Prompt) -> None:
        if len(prompt.ids) > self.capacity:
            maximum = self.model.text.max_position_embeddings
            raise ContextTooLongError(len(prompt.ids), self.capacity, maximum)

    def _common_prefix(self, identity: Sequence[int | bytes]) -> int:
        pairs = zip(self.tokens, identity, strict=False)
        differing = (at for at, (known, new) in enumerate(pairs) if known != new)
        return next(differing, min(len(self.tokens), len(identity)))


def _inside(pictures: Pictures, start: int, end: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """What lies in the block of rows start … end - 1: (row of the block, rows)."""
    for placed, rows in pictures:
        first, last = max(start, placed.start), min(end, placed.end)
        if first < last:
            yield first - start, rows[first - placed.start : last - placed.start]
