"""What a chat is about: the messages and the settings that shape the next answer.

system?  user assistant (tool* assistant)*  user assistant ...
         └─ a round: /undo and /retry go back to its user message ─┘
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from cli import attachments
from cli.attachments import Attachment
from cli.sampling_options import Overrides
from cli.tool_file import ToolList
from hybrid.events import ToolCall

if TYPE_CHECKING:
    from hybrid import Engine

Role = Literal["user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message. What only some roles have is empty for the others."""

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    partial: bool = False  # stopped before its end
    thought_s: float = 0.0
    reasoning_tokens: int = 0
    attachments: tuple[Attachment, ...] = ()  # of a user: what it shows, before the text


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

    @property
    def opened(self) -> bool:
        """Whether all that the messages show has been read in this run."""
        return all(a.media is not None for m in self.messages for a in m.attachments)

    def open_attachments(self, engine: "Engine") -> None:
        """Read what a loaded session shows; RequestError if a file is not what it was."""
        for index, message in enumerate(self.messages):
            if any(attachment.media is None for attachment in message.attachments):
                opened = tuple(attachments.reopened(engine, a) for a in message.attachments)
                self.messages[index] = replace(message, attachments=opened)

    def detach(self, name: str) -> bool:
        """Take a file out of every message; whether there was one of that name."""
        found = False
        for index, message in enumerate(self.messages):
            kept = tuple(a for a in message.attachments if a.name != name)
            found = found or kept != message.attachments
            self.messages[index] = replace(message, attachments=kept)
        return found

    def take_back(self) -> Message | None:
        """Remove the last round; its user message, or None when there is none."""
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index].role == "user":
                message = self.messages[index]
                del self.messages[index:]
                return message
        return None

    def clear(self) -> None:
        """Forget the messages; the settings stay."""
        self.messages.clear()
        self.context_tokens = 0


def engine_message(message: Message) -> dict[str, Any]:
    """One message for the template. An absent key is absent: None would be rendered as a word."""
    plain: dict[str, Any] = {"role": message.role, "content": _content(message)}
    if message.reasoning:
        plain["reasoning_content"] = message.reasoning
    if message.tool_calls:
        plain["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _content(message: Message) -> str | list[dict[str, Any]]:
    """The text; or a list of parts, what is shown first, once its files have been opened."""
    if not message.attachments:
        return message.content
    shown = [{"type": a.kind, a.kind: a.media} for a in message.attachments]
    return [*shown, {"type": "text", "text": message.content}]


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
