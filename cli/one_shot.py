"""One prompt, one answer: the answer on stdout, everything else on stderr.

text     the content; tool calls follow as JSON, one a line
--json   {"content", "reasoning", "tool_calls": [{"id", "name", "arguments"}],
          "finish_reason", "usage": {...}, "stats": {...}}
"""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cli import sessions
from cli.conversation import Conversation
from cli.interrupt import Interrupt, silent_keyboard
from cli.sessions import SessionFile
from cli.turn import Recording, View, stream

if TYPE_CHECKING:
    from hybrid import Engine

CANCELLED = 130


def run(
    engine: "Engine",
    conversation: Conversation,
    view: View,
    session: SessionFile | None = None,
    *,
    as_json: bool,
) -> int:
    """Answer the conversation; the exit code. A stopped answer is printed as far as it got.

    With a session the answer is added to it; without one nothing is written to disk.
    """
    recording = Recording()
    try:
        with Interrupt() as interrupt, silent_keyboard():
            stream(engine, conversation, view, recording, interrupt)
    except KeyboardInterrupt:
        pass  # a second Ctrl-C
    if as_json:
        click.echo(json.dumps(document(recording, engine.stats())))  # ASCII: right in any locale
    else:
        for call in recording.tool_calls:
            click.echo(json.dumps(asdict(call)))
    if session is not None and not recording.empty:
        conversation.messages.append(recording.message())
        sessions.save(session, conversation)
    return CANCELLED if recording.finish_reason == "cancelled" else 0


def document(recording: Recording, engine_stats: dict[str, Any]) -> dict[str, Any]:
    """What --json prints."""
    return {
        "content": "".join(recording.content),
        "reasoning": "".join(recording.reasoning),
        "tool_calls": [asdict(call) for call in recording.tool_calls],
        "finish_reason": recording.finish_reason,
        "usage": asdict(recording.usage),
        "stats": {**asdict(recording.figures), "engine": engine_stats},
    }
