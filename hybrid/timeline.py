"""One sequence of tokens and the rows of the KV cache that belong to it.

The caller always passes the whole prompt; the timeline works out what it already knows:

    known tokens   a b c d e f
    new prompt     a b c x y        ->  rows of a b c are reused, x y are computed

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


class Timeline:
    """Token ids whose keys and values are in the cache, in order."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._lock = threading.Lock()  # blocks of two callers must not interleave
        self.tokens: list[int] = []

    @property
    def capacity(self) -> int:
        """Positions that the KV cache holds."""
        return self.model.backbone.kv_tokens

    def prefill(
        self,
        prompt: Sequence[int],
        poll: Callable[[], None] = lambda: None,
        sink: ProgressSink = ignore,
    ) -> tuple[NDArray[np.float32], int]:
        """Make the timeline equal `prompt`; returns the last token's logits and the reused tokens.

        The last token is always computed: its logits are not kept.
        """
        self._require_room(prompt)
        with self._lock:
            return self._prefill(prompt, poll, sink)

    def all_logits(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits of every position of a fresh sequence: [len(token_ids), vocab_size]."""
        self._require_room(token_ids)
        logits = np.empty((len(token_ids), self.model.text.vocab_size), np.float32)
        with self._lock:
            self.tokens.clear()
            for x in self._blocks(token_ids, lambda: None):
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
        self, prompt: Sequence[int], poll: Callable[[], None], sink: ProgressSink
    ) -> tuple[NDArray[np.float32], int]:
        poll()
        cached = min(self._common_prefix(prompt), len(prompt) - 1)
        del self.tokens[cached:]
        sink(Progress("prefill", 0, len(prompt) - cached, "tokens"))
        last: Stream = None
        for x in self._blocks(prompt, poll):
            last = self.model.backbone.last(x)
            sink(Progress("prefill", len(self.tokens) - cached, len(prompt) - cached, "tokens"))
        logits: NDArray[np.float32] = self.model.logits(last)[0]
        return logits, cached

    def _blocks(self, prompt: Sequence[int], poll: Callable[[], None]) -> Iterator[Stream]:
        """Run what is missing of the prompt, a block at a time."""
        while (start := len(self.tokens)) < len(prompt):
            block = list(prompt[start : start + self.model.backbone.max_block])
            x = self.model.forward(block, start, poll)
            self.tokens += block
            yield x

    def _require_room(self, prompt: Sequence[int]) -> None:
        if len(prompt) > self.capacity:
            maximum = self.model.text.max_position_embeddings
            raise ContextTooLongError(len(prompt), self.capacity, maximum)

    def _common_prefix(self, prompt: Sequence[int]) -> int:
        pairs = zip(self.tokens, prompt, strict=False)
        differing = (at for at, (known, new) in enumerate(pairs) if known != new)
        return next(differing, min(len(self.tokens), len(prompt)))
