"""The slash commands of a chat: one function each, and the table that names them.

Flow is by the fields of Chat: `pending` (answer this next), `draft` (put into the prompt),
`leaving`. A wrong argument is a RequestError, which the loop shows in one line.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cli import media_commands, sampling_options, sessions, transcript
from cli.attachments import named
from cli.chat_state import Chat, autosave
from cli.conversation import Message
from cli.dropped_paths import names_media
from cli.figures import columns, duration, gauge, percent, stats_line, thought
from cli.settings import user_path
from hybrid.errors import KimiLocalError, RequestError


@dataclass(frozen=True, slots=True)
class Command:
    """One slash command; `choices` completes its argument, None means that it takes a path."""

    name: str
    argument: str
    help: str
    run: Callable[[Chat, str], None]
    choices: Callable[[Chat], Sequence[str]] | None = lambda _: ()


def is_command(text: str) -> bool:
    """A line that starts with a slash word; "/home/me/x is ..." and "/x.png" are messages."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    return first.startswith("/") and "/" not in first[1:] and not names_media(first)


def run(chat: Chat, text: str) -> None:
    """Carry out a command line; RequestError if there is no such command."""
    name, _, argument = text.strip()[1:].partition(" ")
    command = COMMANDS.get(_ALIASES.get(name, name))
    if command is None:
        close = [known for known in COMMANDS if name and known.startswith(name)]
        close += difflib.get_close_matches(name, [*COMMANDS, *_ALIASES], n=1)
        hint = f"did you mean /{close[0]}?" if close else "/help lists the commands"
        raise RequestError(f"there is no command /{name}; {hint}")
    command.run(chat, argument.strip())


def _help(chat: Chat, _: str) -> None:
    rows = [(f"/{c.name} {c.argument}".rstrip(), c.help) for c in COMMANDS.values()]
    keys = [
        ("Enter", "send"),
        ("Alt-Enter, Ctrl-J", 'new line; or put a text between """ and """'),
        ("a path", "a picture or video in the line, typed or dropped, is shown with it"),
        ("Ctrl-G", "write in your editor"),
        ("Ctrl-C", "stop the answer; at the prompt clear it, twice to leave"),
        ("Ctrl-D", "leave"),
    ]
    chat.view.say(columns([*rows, ("", ""), *keys]))


def _think(chat: Chat, argument: str) -> None:
    if argument:
        if argument not in ("on", "off"):
            raise RequestError(f"/think takes on or off, not {argument!r}")
        chat.conversation.thinking = argument == "on"
    state = "on" if chat.conversation.thinking else "off (instant mode)"
    chat.view.say(f"thinking is {state}", "dim")


def _system(chat: Chat, argument: str) -> None:
    if argument:
        chat.conversation.system = None if argument == "none" else argument
    chat.view.say(f"system prompt: {chat.conversation.system or 'none'}", "dim")


def _set(chat: Chat, argument: str) -> None:
    name, _, value = argument.partition(" ")
    if not name:
        chat.view.say(_settings_table(chat))
        return
    name = name.replace("-", "_")
    if name not in sampling_options.KNOBS:
        close = difflib.get_close_matches(name, sampling_options.KNOBS, n=1)
        hint = f"did you mean {close[0]}?" if close else "/set lists them"
        raise RequestError(f"there is no setting {name!r}; {hint}")
    sampling = chat.conversation.sampling
    if value.strip() in ("default", "none"):
        sampling.pop(name, None)
    elif value.strip():
        sampling[name] = sampling_options.parse(name, value.strip())
    chat.view.say(f"{name} is {_value(chat, name)}", "dim")


def _settings_table(chat: Chat) -> str:
    rows = [("", "now", "thinking", "instant", "")]
    for name, knob in sampling_options.KNOBS.items():
        rows.append((name, _value(chat, name), knob.thinking, knob.instant, knob.help))
    return columns(rows) + "\n\n  /set NAME VALUE changes one, /set NAME default undoes it"


def _value(chat: Chat, name: str) -> str:
    sampling, knob = chat.conversation.sampling, sampling_options.KNOBS[name]
    if name not in sampling:
        return knob.thinking if chat.conversation.thinking else knob.instant
    value = sampling[name]
    return " ".join(map(repr, value)) if isinstance(value, tuple) else str(value)


def _retry(chat: Chat, _: str) -> None:
    chat.pending = _last_user_message(chat)
    if "seed" in chat.conversation.sampling:
        chat.view.say("the seed is fixed, so is the answer; /set seed default frees it", "dim")


def _undo(chat: Chat, _: str) -> None:
    message = _last_user_message(chat)
    autosave(chat)
    text = message.content.strip()
    first = text.split("\n", 1)[0]
    chat.view.say(f"taken back: {first[:60]}{'…' if text != first[:60] else ''}", "dim")
    _keep_attached(chat, message)


def _edit(chat: Chat, _: str) -> None:
    message = _last_user_message(chat)
    chat.draft = message.content
    _keep_attached(chat, message)


def _keep_attached(chat: Chat, message: Message) -> None:
    if message.attachments:
        media_commands.take_up(chat, message)
        names = named(message.attachments)
        chat.view.say(f"still attached: {names}; /detach drops it", "dim")


def _last_user_message(chat: Chat) -> Message:
    message = chat.conversation.take_back()
    if message is None:
        raise RequestError("nothing has been said yet")
    return message


def _put_away(chat: Chat) -> None:
    """Save the present conversation before another takes its place, or keep it here."""
    autosave(chat)
    if chat.unsaved:
        raise KimiLocalError("this conversation is not saved yet: /export FILE puts it elsewhere")


def _clear(chat: Chat, _: str) -> None:
    _put_away(chat)
    chat.conversation.clear()
    chat.last = None
    kept = f"; the old one stays as {chat.session.name}" if chat.session.seen else ""
    chat.session = sessions.new_session(chat.settings.sessions_dir)
    chat.view.say(f"a new conversation{kept}", "dim")


def _save(chat: Chat, name: str) -> None:
    if name:
        path = sessions.session_path(chat.settings.sessions_dir, name)
        if path != chat.session.path:
            if path.exists():
                raise RequestError(f"there is a session {name}; /load it or take another name")
            chat.session = sessions.SessionFile(path)
    sessions.save(chat.session, chat.conversation)
    chat.unsaved = False
    chat.view.say(f"saved as {chat.session.name}; every answer is saved from now on", "dim")


def _load(chat: Chat, name: str) -> None:
    if not name:
        raise RequestError("/load needs a name; /sessions lists them")
    path = sessions.session_path(chat.settings.sessions_dir, name)
    if not path.exists():
        close = difflib.get_close_matches(name, sessions.names(chat.settings.sessions_dir), n=1)
        hint = f"did you mean {close[0]}?" if close else "/sessions lists them"
        raise RequestError(f"there is no session {name}; {hint}")
    loaded = sessions.load(path)
    _put_away(chat)
    chat.session, chat.conversation = loaded
    chat.last = None
    transcript.recall(chat.view, chat.session.name, chat.conversation)


def _sessions(chat: Chat, _: str) -> None:
    found = sessions.names(chat.settings.sessions_dir)
    if not found:
        chat.view.say("no sessions yet", "dim")
        return
    marked = [f"{name}  (this one)" if name == chat.session.name else name for name in found]
    chat.view.say("\n".join(f"  {name}" for name in marked))


def _thought(chat: Chat, _: str) -> None:
    message = chat.conversation.last("assistant")
    if message is None or not message.reasoning:
        raise RequestError("the last answer has no thinking")
    chat.view.say(thought(message.thought_s, message.reasoning_tokens), "dim")
    chat.view.say(message.reasoning.strip(), "dim")


def _stats(chat: Chat, _: str) -> None:
    totals = chat.totals
    rows = [
        ("answers", f"{totals.answers}"),
        ("prompt tokens", f"{totals.prompt_tokens:,} ({totals.cached_tokens:,} from the KV cache)"),
        ("answer tokens", f"{totals.completion_tokens:,}"),
        ("time answering", duration(totals.seconds)),
    ]
    if chat.last is not None:
        figures, usage = chat.last.figures, chat.last.usage
        rows.append(("last answer", stats_line(figures, usage, chat.engine.kv_tokens)))
    rows += [
        (f"engine {key}", _flat(value))
        for key, value in chat.engine.stats().items()
        if value is not None
    ]
    chat.view.say(columns(rows))


def _flat(value: object) -> str:
    """A number or a tree of numbers on one line."""
    if isinstance(value, dict):
        return " · ".join(f"{key} {_flat(inner)}" for key, inner in value.items())
    return f"{value:,.4g}" if isinstance(value, float) else f"{value}"


def _context(chat: Chat, _: str) -> None:
    used, capacity = chat.conversation.context_tokens, chat.engine.kv_tokens
    messages = len(chat.conversation.messages)
    if not used and messages:
        chat.view.say(f"{messages} messages; counted with the next answer, room for {capacity:,}")
        return
    share = f"{gauge(used, capacity)} {percent(used, capacity)}"
    chat.view.say(f"{share} · {used:,} of {capacity:,} tokens · {messages} messages")


def _copy(chat: Chat, _: str) -> None:
    message = chat.conversation.last("assistant")
    if message is None or not message.content:
        raise RequestError("there is no answer to copy")
    transcript.copy_to_clipboard(message.content)
    chat.view.say("the last answer was sent to the terminal's clipboard (OSC 52)", "dim")


def _export(chat: Chat, argument: str) -> None:
    if not argument:
        raise RequestError("/export needs a file name")
    path = user_path(argument)
    transcript.export(path, chat.conversation)
    chat.view.say(f"written to {path}", "dim")


def _exit(chat: Chat, _: str) -> None:
    chat.leaving = True


def _on_off(_: Chat) -> Sequence[str]:
    return ("on", "off")


def _knob_names(_: Chat) -> Sequence[str]:
    return list(sampling_options.KNOBS)


def _session_names(chat: Chat) -> Sequence[str]:
    return sessions.names(chat.settings.sessions_dir)


COMMANDS = {
    command.name: command
    for command in (
        Command("help", "", "this list", _help),
        Command("think", "[on|off]", "let the model think first, or not", _think, _on_off),
        Command("system", "[TEXT|none]", "show or set the system prompt", _system),
        Command("set", "[NAME VALUE]", "show or change sampling settings", _set, _knob_names),
        Command(
            "image", "[PATH]", "show a picture with the next message", media_commands.image, None
        ),
        Command(
            "video", "[PATH]", "show a video with the next message", media_commands.video, None
        ),
        Command(
            "detach",
            "[NAME]",
            "drop what /image and /video attached",
            media_commands.detach,
            media_commands.names,
        ),
        Command("thought", "", "show the thinking behind the last answer", _thought),
        Command("retry", "", "answer the last message again", _retry),
        Command("edit", "", "change the last message", _edit),
        Command("undo", "", "take back the last message and its answer", _undo),
        Command("clear", "", "start a new conversation", _clear),
        Command("save", "[NAME]", "save, under a name if given", _save),
        Command("load", "NAME", "go on with a saved session", _load, _session_names),
        Command("sessions", "", "list saved sessions, latest first", _sessions),
        Command("export", "FILE", "write the conversation as markdown", _export, None),
        Command("copy", "", "copy the last answer", _copy),
        Command("context", "", "how full the context is", _context),
        Command("stats", "", "tokens, times and rates of this run", _stats),
        Command("exit", "", "leave; the session is saved", _exit),
    )
}
_ALIASES = {"quit": "exit", "q": "exit", "new": "clear", "?": "help"}
