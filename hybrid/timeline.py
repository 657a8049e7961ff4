"""One sequence of tokens and the rows of the KV cache that belong to it.

The caller always passes the whole prompt; the timeline works out what it already knows:

    known tokens   a b c d e f
    new prompt     a b c x y        ->  rows of a b c are reused, x y are computed

Rows of a picture are known by its content, not by the placeholder's token id.

A prompt goes through the model in passes: as many tokens as the experts take at once, cut into
blocks for the backbone. A row counts only once its whole pass is through all layers, so that a
cancelled prefill leaves the timeline shorter, never wrong.
"""

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hybrid.backbone import Stream
from hybrid.errors import ContextTooLongError
from hybrid.model import Block, Model
from hybrid.progress import Progress, ProgressSink, ignore
from hybrid.vision.prompt import Placed, Prompt

PASS_TOKENS = 2048  # each expert is read once a pass; cpu_experts/job.py takes no more at once
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
            for blocks, streams in self._passes(prompt.ids, prompt.identity(), pictures):
                for block, x in zip(blocks, streams, strict=True):
                    logits[block.start : block.start + len(x)] = self.model.logits(x)
        return logits

    def step(self, token_id: int, poll: Callable[[], None] = lambda: None) -> NDArray[np.float32]:
        """Append one token; returns the logits of the next: [vocab_size]."""
        with self._lock:
            (x,) = self.model.forward([Block([token_id], len(self.tokens))], poll, prompt=False)
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

        def show(position: int) -> None:
            sink(Progress("prefill", position - cached, missing, "tokens"))

        show(cached)
        last: Stream = None
        for _, streams in self._passes(prompt.ids, identity, pictures, poll, show):
            last = self.model.backbone.last(streams[-1])
            show(len(self.tokens))
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

    def _passes(
        self,
        ids: list[int],
        identity: list[int | bytes],
        pictures: Pictures,
        poll: Callable[[], None] = lambda: None,
        show: Callable[[int], None] = lambda _: None,
    ) -> Iterator[tuple[list[Block], list[Stream]]]:
        """Run what is missing of a prompt, a pass at a time; `show` is told how far it is."""
        size = self.model.backbone.max_block
        while (start := len(self.tokens)) < len(identity):
            end = min(start + PASS_TOKENS, len(identity))
            cuts = [(at, min(at + size, end)) for at in range(start, end, size)]
            blocks = [Block(ids[a:b], a, list(_inside(pictures, a, b))) for a, b in cuts]
            polls = len(blocks) * self.model.text.num_hidden_layers
            streams = self.model.forward(blocks, _counting(poll, show, start, end, polls))
            self.tokens += identity[start:end]
            yield blocks, streams

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


def _counting(
    poll: Callable[[], None], show: Callable[[int], None], start: int, end: int, polls: int
) -> Callable[[], None]:
    """A `poll` that tells how far a pass from `start` to `end` is, by how often it was asked."""
    asked, shown = 0, start

    def count() -> None:
        nonlocal asked, shown
        poll()
        position = start + (end - start) * asked // polls
        asked += 1
        if position > shown:
            shown = position
            show(position)

    return count
