"""What a generation is made of: the one vocabulary that every front end reads.

reasoning* content* tool_call* finish     (text comes in pieces, a tool call whole)
"""

from dataclasses import dataclass, field
from typing import Literal

EventKind = Literal["reasoning", "content", "tool_call", "finish"]
FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call the model asks for. `arguments` is the model's JSON text, unparsed."""

    id: str  # "functions.get_weather:0", returned unchanged in the tool message
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of a chosen token, and of the likeliest alternatives at its place."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request."""

    prompt_tokens: int = 0
    cached_tokens: int = 0  # part of the prompt whose KV was reused
    completion_tokens: int = 0
    reasoning_tokens: int = 0  # part of the completion


@dataclass(frozen=True, slots=True)
class Event:
    """A piece of the answer. `text` is whole UTF-8; `token_ids` are the tokens it came from."""

    kind: EventKind
    text: str = ""
    token_ids: tuple[int, ...] = ()
    tool_call: ToolCall | None = None  # kind "tool_call"
    finish_reason: FinishReason | None = None  # kind "finish", as is usage
    usage: Usage | None = None
    logprobs: tuple[TokenLogprob, ...] = field(default=())
