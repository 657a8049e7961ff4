"""A conversation as text to read: recalled on the screen, exported to a file, copied."""

import base64
import sys
from pathlib import Path

from cli.attachments import named
from cli.conversation import Conversation, Message, Role
from cli.turn import View
from hybrid.errors import KimiLocalError

_TITLES = {"user": "You", "assistant": "Kimi", "tool": "Tool"}
_RECALLED = 2000  # characters of each message; the rest is in /export


def recall(view: View, name: str, conversation: Conversation) -> None:
    """Say where a resumed session stands, with its last exchange."""
    count = len(conversation.messages)
    view.say(f"session {name} · {count} message{'s' * (count != 1)}", "dim")
    roles: tuple[Role, ...] = ("user", "assistant")
    for role in roles:
        message = conversation.last(role)
        if message is not None:
            view.say(f"{'you' if role == 'user' else 'kimi'} ▸ {_short(message)}", "dim")


def export(path: Path, conversation: Conversation) -> None:
    """Write markdown; never over a file that exists."""
    parts = [f"## System\n\n{conversation.system}"] if conversation.system else []
    parts += [_section(message) for message in conversation.messages]
    try:
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write("\n\n".join(parts) + "\n")
    except OSError as error:
        raise KimiLocalError(f"{path}: {error.strerror}; nothing was written over") from None


def copy_to_clipboard(text: str) -> None:
    """OSC 52: the terminal itself copies, which works over SSH as well."""
    encoded = base64.b64encode(text.encode(errors="replace")).decode()
    sys.stdout.write(f"\x1b]52;c;{encoded}\x07")
    sys.stdout.flush()


def _short(message: Message) -> str:
    text = message.content.strip() or "(no text)"
    cut = f"{text[:_RECALLED]}…" if len(text) > _RECALLED else text
    shown = f"({named(message.attachments)}) {cut}" if message.attachments else cut
    return f"{shown} (stopped)" if message.partial else shown


def _section(message: Message) -> str:
    title = _TITLES[message.role] + (" (stopped)" if message.partial else "")
    shown = [f"{a.kind}: `{a.name.replace('`', '')}`" for a in message.attachments]
    calls = [f"`{call.name}` {call.arguments}" for call in message.tool_calls]
    return "\n\n".join([f"## {title}", *shown, message.content.strip(), *calls])
