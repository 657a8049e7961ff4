"""From generated token ids to events: the stream grammar of spec §5.7, and the model's habits.

    REASONING </think> CONTENT <|tool_calls_section_begin|>
        ( <|tool_call_begin|> functions.NAME:IDX <|tool_call_argument_begin|> JSON
          <|tool_call_end|> )+
    <|tool_calls_section_end|> <|im_end|>

Decisions are taken from ids, so the same characters as ordinary text close nothing. No control
token reaches an event's text. What models do beside the grammar, and what we make of it:

    tool section or call inside reasoning       ends the reasoning
    <|tool_call_begin|> without a section       opens one
    <|tool_call_section_begin|> as plain text   dropped if a call follows at once, else text
    text between calls, or after a section      dropped
    call ended by the section or the next call  emitted as it stands
    call cut off by the end of the stream       emitted if its arguments are whole JSON
    id without "functions.", index or name      completed: see `_resolve`
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from hybrid.chat.messages import normalise_tools
from hybrid.chat.tokenizer import StreamDecoder, Tokenizer
from hybrid.events import Event, EventKind, ToolCall

_TEXT_MARKER = "<|tool_call_section_begin|>"
_TEXT_MARKER_AND_SPACE = re.compile(re.escape(_TEXT_MARKER) + r"\s{0,8}")
_PREFIX = "functions."


class _State(Enum):
    REASONING = "reasoning"
    CONTENT = "content"
    BETWEEN = "between"  # inside a tool section or behind it, outside a call
    ID = "id"
    ARGUMENTS = "arguments"


class StreamParser:
    """Turns one answer's ids into events. `prior_calls` numbers calls that carry no index.

    Each pushed id is in `token_ids` of exactly one event, except those in `leftover_ids` after
    `finish`. Ids without text of their own (markers, dropped text, part of a character) go with
    the next event.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        thinking: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
        prior_calls: int = 0,
    ) -> None:
        self._tokenizer = tokenizer
        self._decoder = StreamDecoder(tokenizer)
        self._declared = _declared_names(tools)
        self._next_index = prior_calls
        self._state = _State.REASONING if thinking else _State.CONTENT
        self._held = ""  # text that may become a text marker
        self._call_id: list[str] = []
        self._arguments: list[str] = []
        self._pending: list[int] = []
        self._on_control: dict[str, Callable[[int], list[Event]]] = {
            "<think>": self._begin_reasoning,
            "</think>": self._end_reasoning,
            "<|tool_calls_section_begin|>": self._begin_section,
            "<|tool_calls_section_end|>": self._end_section,
            "<|tool_call_begin|>": self._begin_call,
            "<|tool_call_argument_begin|>": self._begin_arguments,
            "<|tool_call_end|>": self._end_call,
        }
        self.reasoning_tokens = 0  # tokens of reasoning text, without markers
        self.saw_tool_calls = False

    @property
    def leftover_ids(self) -> tuple[int, ...]:
        """Ids that no event carries yet; after `finish`, ids for the finish event."""
        return tuple(self._pending)

    def push(self, token_id: int) -> list[Event]:
        """Return the events that this id completes."""
        if not self._tokenizer.is_special(token_id):
            if self._state is _State.REASONING:
                self.reasoning_tokens += 1
            text = self._decoder.push(token_id)
            self._pending.append(token_id)
            return self._take(text)
        events = self._take(self._decoder.flush())
        action = self._on_control.get(self._tokenizer.name_of(token_id), self._ignore)
        return events + action(token_id)

    def finish(self) -> list[Event]:
        """Return what was held back when the stream ends."""
        events = self._take(self._decoder.flush()) + self._release(keep=0)
        if self._state is _State.ARGUMENTS and _is_json_object("".join(self._arguments)):
            events += self._emit_call()
        self._state = _State.BETWEEN
        return events

    def _take(self, text: str) -> list[Event]:
        """Put ordinary text where the state wants it."""
        if self._state is _State.ID:
            self._call_id.append(text)
        elif self._state is _State.ARGUMENTS:
            self._arguments.append(text)
        elif self._in_text:
            self._held += text
            return self._release(keep=_marker_chars(self._held))
        return []

    @property
    def _in_text(self) -> bool:
        return self._state in (_State.REASONING, _State.CONTENT)

    def _release(self, keep: int) -> list[Event]:
        """Return held text but for its last `keep` characters."""
        text = self._held[: len(self._held) - keep]
        self._held = self._held[len(text) :]
        if not text:
            return []
        kind: EventKind = "reasoning" if self._state is _State.REASONING else "content"
        return [Event(kind, text, self._take_pending())]

    def _take_pending(self) -> tuple[int, ...]:
        ids = tuple(self._pending)
        self._pending.clear()
        return ids

    def _ignore(self, token_id: int) -> list[Event]:
        self._pending.append(token_id)
        return []

    def _begin_reasoning(self, token_id: int) -> list[Event]:
        return self._switch(token_id, _State.REASONING)

    def _end_reasoning(self, token_id: int) -> list[Event]:
        return self._switch(token_id, _State.CONTENT)

    def _switch(self, token_id: int, state: _State) -> list[Event]:
        if not self._in_text:
            return self._ignore(token_id)
        events = self._release(keep=0)
        self._state = state
        return events + self._ignore(token_id)

    def _begin_section(self, token_id: int) -> list[Event]:
        events = self._release(keep=0) + self._close_call()
        self._state = _State.BETWEEN
        return events + self._ignore(token_id)

    def _end_section(self, token_id: int) -> list[Event]:
        self._pending.append(token_id)
        return self._close_call()

    def _begin_call(self, token_id: int) -> list[Event]:
        if _TEXT_MARKER_AND_SPACE.fullmatch(self._held):
            self._held = ""
        events = self._release(keep=0) + self._close_call()
        self._state = _State.ID
        return events + self._ignore(token_id)

    def _begin_arguments(self, token_id: int) -> list[Event]:
        if self._state is _State.ID:
            self._state = _State.ARGUMENTS
        return self._ignore(token_id)

    def _end_call(self, token_id: int) -> list[Event]:
        self._pending.append(token_id)
        return self._close_call()

    def _close_call(self) -> list[Event]:
        """Emit the call that is open, if one is."""
        if self._state not in (_State.ID, _State.ARGUMENTS):
            return []
        events = self._emit_call()
        self._state = _State.BETWEEN
        return events

    def _emit_call(self) -> list[Event]:
        name, index = self._resolve("".join(self._call_id).strip())
        arguments = "".join(self._arguments) or "{}"
        self._call_id.clear()
        self._arguments.clear()
        if not name:
            return []
        self._next_index = max(self._next_index, index + 1)
        self.saw_tool_calls = True
        call = ToolCall(f"{_PREFIX}{name}:{index}", name, arguments)
        return [Event("tool_call", token_ids=self._take_pending(), tool_call=call)]

    def _resolve(self, call_id: str) -> tuple[str, int]:
        """Return the tool's name and the call's index.

        `functions.` is optional and any other namespace before a declared name is dropped. A bare
        number means the only tool there is; with several, the number passes as the name, so that
        the client answers "no such tool" instead of never hearing of the call. No index: the next.
        """
        head, _, tail = call_id.rpartition(":")
        index = _index(tail)
        name = call_id if index is None else head.strip()
        if not name:
            name = self._declared[0] if len(self._declared) == 1 else call_id
        return self._tool_name(name), self._next_index if index is None else index

    def _tool_name(self, name: str) -> str:
        rest = name.removeprefix(_PREFIX)
        if rest in self._declared:
            return rest
        parts = name.split(".")
        endings = (".".join(parts[start:]) for start in range(len(parts)))
        return next((ending for ending in endings if ending in self._declared), rest)


def _marker_chars(text: str) -> int:
    """Return how many last characters of `text` are a text marker, or may still become one."""
    start = text.rfind(_TEXT_MARKER[0])
    tail = text[start:] if start >= 0 else ""
    held = _TEXT_MARKER.startswith(tail) or _TEXT_MARKER_AND_SPACE.fullmatch(tail)
    return len(tail) if held else 0


def _declared_names(tools: Sequence[Mapping[str, Any]] | None) -> tuple[str, ...]:
    functions = (tool for tool in normalise_tools(tools) if tool.get("type") == "function")
    return tuple(tool["function"]["name"] for tool in functions)


def _index(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
