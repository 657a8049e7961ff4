"""Token ids in, token ids out: prefill, then sample and step until something says stop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from hybrid.events import FinishReason, TokenLogprob
from hybrid.progress import ProgressSink, ignore
from hybrid.sampling import Sampler
from hybrid.timeline import Timeline
from hybrid.vision.prompt import Prompt


class _Cancelled(Exception):  # noqa: N818  a signal out of a block, never an error
    """`should_stop` said so between two layers."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One token of the answer."""

    token_id: int
    logprob: TokenLogprob | None


@dataclass(slots=True)
class Timing:
    """Tokens and seconds of one request; summed up, of all."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    decode_steps: int = 0  # forward passes of one token
    vision_s: float = 0.0  # in the tower, before the prefill
    prefill_s: float = 0.0
    decode_s: float = 0.0  # sampling included

    def add(self, other: "Timing") -> None:
        """Add another request's numbers."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Generation:
    """One run of the model from a prompt. Iterate it once; `finish_reason` and `timing` follow."""

    timeline: Timeline
    sampler: Sampler
    stop_ids: frozenset[int]
    max_tokens: int
    should_stop: Callable[[], bool]
    timing: Timing
    finish_reason: FinishReason = "length"

    def tokens(self, prompt: Prompt, sink: ProgressSink = ignore) -> Iterator[Sampled]:
        """Yield sampled tokens up to, not including, a stop token."""
        try:
            logits = self._prefill(prompt, sink)
            for count in range(1, self.max_tokens + 1):
                token = self._sample(logits)
                if token.token_id in self.stop_ids:
                    self.finish_reason = "stop"
                    return
                yield token
                if count < self.max_tokens:  # nobody needs the logits behind the last token
                    logits = self._step(token.token_id)
        except _Cancelled:
            self.finish_reason = "cancelled"

    def _prefill(self, prompt: Prompt, sink: ProgressSink) -> NDArray[np.float32]:
        began, looked = perf_counter(), self._looked_s
        self.timing.prompt_tokens = len(prompt.ids)
        try:
            logits, cached = self.timeline.prefill(prompt, self._poll, sink)
        finally:
            self.timing.vision_s = self._looked_s - looked
            self.timing.prefill_s = perf_counter() - began - self.timing.vision_s
        self.timing.cached_tokens = cached
        return logits

    @property
    def _looked_s(self) -> float:
        """Seconds that the tower has worked since the model was loaded."""
        vision = self.timeline.model.vision
        return vision.seen.seconds if vision else 0.0

    def _sample(self, logits: NDArray[np.float32]) -> Sampled:
        began = perf_counter()
        token_id = self.sampler(logits)
        logprob = self.sampler.logprob(logits, token_id)
        self.timing.completion_tokens += 1
        self.timing.decode_s += perf_counter() - began
        return Sampled(token_id, logprob)

    def _step(self, token_id: int) -> NDArray[np.float32]:
        began = perf_counter()
        try:
            return self.timeline.step(token_id, self._poll)
        finally:
            self.timing.decode_steps += 1
            self.timing.decode_s += perf_counter() - began

    def _poll(self) -> None:
        if self.should_stop():
            raise _Cancelled
