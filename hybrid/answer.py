"""Sampled tokens as the events of one answer: parsed, cut at stop strings, with logprobs."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from hybrid.chat.parser import StreamParser
from hybrid.chat.stop import StopStrings
from hybrid.events import Event, TokenLogprob
from hybrid.generation import Sampled


class Answer:
    """One answer in the making. Stop strings look at content only, never at reasoning."""

    def __init__(self, parser: StreamParser, stops: StopStrings) -> None:
        self._parser = parser
        self._stops = stops
        self._logprobs: deque[TokenLogprob] = deque()
        self.stopped = False  # a stop string is complete: no more tokens are wanted

    @property
    def called_tools(self) -> bool:
        """Whether the answer holds a tool call."""
        return self._parser.saw_tool_calls

    @property
    def reasoning_tokens(self) -> int:
        """Tokens that went into reasoning."""
        return self._parser.reasoning_tokens

    @property
    def leftover_ids(self) -> tuple[int, ...]:
        """Tokens that no event carries: they stood for nothing that is shown."""
        return self._parser.leftover_ids

    def push(self, token: Sampled) -> Iterator[Event]:
        """Take one token; yields what it completes."""
        if token.logprob is not None:
            self._logprobs.append(token.logprob)
        yield from self._cut(self._parser.push(token.token_id))

    def finish(self) -> Iterator[Event]:
        """Yield what was held back, once no token will follow."""
        if self.stopped:
            return
        yield from self._cut(self._parser.finish())
        if not self.stopped and (rest := self._stops.flush()):
            yield Event("content", rest)

    def _cut(self, events: list[Event]) -> Iterator[Event]:
        for event in events:
            if event.kind == "content":
                text, hit = self._stops.push(event.text)
                self.stopped = hit is not None
                event = replace(event, text=text)
            count = min(len(event.token_ids), len(self._logprobs))
            logprobs = tuple(self._logprobs.popleft() for _ in range(count))
            if event.text or event.token_ids or event.tool_call:
                yield replace(event, logprobs=logprobs)
            if self.stopped:
                return
