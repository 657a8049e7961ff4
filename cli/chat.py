"""`kimi-local chat`: the flags, and the way from them to one answer or a conversation.

    flags ─> Settings, Conversation ─> hybrid.load ─> one_shot | chat_loop

The modules that do the work are imported when they are needed: `chat --help` must be quick.
"""

import sys
from typing import TYPE_CHECKING, Any

import click

import hybrid
from cli import sampling_options, settings
from cli.engine_loading import DIRECTORY, FILE, load_flags, loaded, one_shot_view
from cli.prompt_source import one_shot_prompt
from cli.settings import Settings
from hybrid.errors import RequestError

if TYPE_CHECKING:
    from cli.attachments import Attachment
    from cli.conversation import Conversation
    from cli.sessions import SessionFile
    from cli.turn import View


@click.command("chat")
@click.option("-m", "--model", type=DIRECTORY, help="Checkpoint. [default: $KIMI_LOCAL_MODEL]")
@click.option("-p", "--prompt", help='Answer this and exit; "-" reads standard input.')
@click.option("--instant", is_flag=True, help="Answer without thinking first.")
@click.option("--system", help="System prompt.")
@click.option("-i", "--image", type=FILE, multiple=True, help="Show a picture; repeatable.")
@click.option("--video", type=FILE, multiple=True, help="Show a video; repeatable.")
@click.option("--tools", type=FILE, help="JSON list of tool declarations.")
@click.option("-c", "--continue", "resume", is_flag=True, help="Go on with the last session.")
@click.option("--session", help="Go on with this session, or begin it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (one-shot only).")
@click.option("--plain", is_flag=True, help="No markdown, no moving parts.")
@sampling_options.sampling_flags
@load_flags
def command(prompt: str | None, as_json: bool, plain: bool, **flags: Any) -> int:
    """Talk with a model; with -p or a pipe, answer one prompt and exit."""
    if flags["resume"] and flags["session"]:
        raise click.UsageError("--continue and --session both name a session: give one")
    text = one_shot_prompt(prompt)
    here = settings.read()
    if text is None:
        _require_terminal(as_json=as_json)
        return _converse(here, flags, plain=plain or here.dumb_terminal)
    return _answer(here, flags, text, as_json=as_json, plain=plain or here.dumb_terminal)


def _require_terminal(*, as_json: bool) -> None:
    if as_json:
        raise click.UsageError("--json answers one prompt: give it with -p or a pipe")
    if not sys.stdout.isatty():
        raise click.UsageError("a chat needs a terminal: give the prompt with -p")


def _answer(here: Settings, flags: dict[str, Any], text: str, *, as_json: bool, plain: bool) -> int:
    from cli import one_shot
    from cli.conversation import Message

    view = one_shot_view(here, as_json=as_json, plain=plain)
    session, conversation = _open(here, flags)
    with loaded(here, flags, view) as engine:
        attachments = tuple(_attach(engine, flags, view))
        conversation.messages.append(Message("user", text, attachments=attachments))
        return one_shot.run(engine, conversation, view, session, as_json=as_json)


def _converse(here: Settings, flags: dict[str, Any], *, plain: bool) -> int:
    from cli import chat_loop, sessions
    from cli.chat_state import Chat

    view = _chat_view(here, plain=plain)
    session, conversation = _open(here, flags)
    if session is None:
        session = sessions.new_session(here.sessions_dir)
    with loaded(here, flags, view) as engine:
        chat = Chat(engine, view, conversation, session, here)
        chat.attached = _attach(engine, flags, view)
        return chat_loop.run(chat)


def _attach(engine: "hybrid.Engine", flags: dict[str, Any], view: "View") -> "list[Attachment]":
    """What the flags show with the first message: pictures, then videos."""
    from cli.attachments import KINDS, attach

    return attach(engine, view, [(kind, path) for kind in KINDS for path in flags[kind]])


def _open(here: Settings, flags: dict[str, Any]) -> "tuple[SessionFile | None, Conversation]":
    """The conversation to go on with: named, the last one, or new; flags win over what it holds."""
    from cli import sessions
    from cli.conversation import Conversation
    from cli.tool_file import read_tools

    session, conversation = None, Conversation()
    name = flags["session"] or _last_session(here, resume=flags["resume"])
    if name is not None:
        path = sessions.session_path(here.sessions_dir, name)
        session = sessions.SessionFile(path)
        if path.exists():
            session, conversation = sessions.load(path)
    if flags["instant"]:
        conversation.thinking = False
    if flags["system"] is not None:
        conversation.system = flags["system"] or None
    if flags["tools"] is not None:
        conversation.tools = read_tools(flags["tools"])
    conversation.sampling |= sampling_options.given(flags)
    return session, conversation


def _last_session(here: Settings, *, resume: bool) -> str | None:
    from cli import sessions

    if not resume:
        return None
    found = sessions.names(here.sessions_dir)
    if not found:
        raise RequestError("there is no session to go on with yet", param="continue")
    return found[0]


def _chat_view(here: Settings, *, plain: bool) -> "View":
    if plain:
        from cli.plain_view import PlainView

        return PlainView(colour=here.colour, chat=True)
    from cli.ui import RichView

    return RichView(colour=here.colour)
