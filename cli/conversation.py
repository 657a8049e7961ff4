"""What a chat is about: the messages and the settings that shape the next answer.

system?  user assistant (tool* assistant)*  user assistant ...
         └─ a round: /undo and /retry go back to its user message ─┘
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from cli.sampling_options import Overrides
from cli.tool_file import ToolList
from hybrid.events import ToolCall

Role = Literal["user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message. What only an assistant or a tool has is empty for the others."""

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    partial: bool = False  # stopped before its end
    thought_s: float = 0.0
    reasoning_tokens: int = 0


@dataclass(slots=True)
class Conversation:
    """A timeline of messages; `context_tokens` is what the last answer left in the KV cache."""

    messages: list[Message] = field(default_factory=list)
    system: str | None = None
    thinking: bool = True
    tools: ToolList | None = None
    sampling: Overrides = field(default_factory=dict)
    context_tokens: int = 0

    def for_engine(self) -> list[dict[str, Any]]:
        """The messages in the form that chat templates read; the system message first."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        return head + [engine_message(message) for message in self.messages]

    def last(self, role: Role) -> Message | None:
        """The latest message of a role."""
        return next((m for m in reversed(self.messages) if m.role == role), None)

    def take_back(self) -> str | None:
        """Remove the last round; its user text, or None when there is none."""
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index].role == "user":
                text = self.messages[index].content
                del self.messages[index:]
                return text
        return None

    def clear(self) -> None:
        """Forget the messages; the settings stay."""
        self.messages.clear()
        self.context_tokens = 0


def engine_message(message: Message) -> dict[str, Any]:
    """One message for the template. An absent key is absent: None would be rendered as a word."""
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        plain["reasoning_content"] = message.reasoning
    if message.tool_calls:
        plain["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
