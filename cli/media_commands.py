"""What the next message of a chat shows: attached by command, or by a path in the message itself.

    /image board.png              attach; the prompt stays open for the words
    ~/board.png                   the same: a line that names files and says nothing
    what is in ~/board.png ?      attach and send; the words keep the name: "what is in board.png ?"

Either all files of a line can be opened or none is attached, and the line comes back for changing.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from cli.attachments import Attachment, Kind, attach, named
from cli.chat_state import Chat, autosave
from cli.conversation import Message
from cli.dropped_paths import argument_paths, mentions, without_paths
from cli.figures import columns, media_line
from hybrid.errors import RequestError

_VERBATIM = '; a text between """ and """ is sent as it is'


def compose(chat: Chat, text: str) -> None:
    """Make a message of what was typed, with the files that it names; RequestError if one fails."""
    found = mentions(text)
    chat.draft = text  # until everything is open
    try:
        attach_all(chat, [(mention.kind, mention.path) for mention in found])
    except RequestError as error:
        raise RequestError(f"{error}{_VERBATIM}", error.param) from None
    chat.draft = ""
    words = without_paths(text, found) if found else text
    if words:
        send(chat, words)


def send(chat: Chat, text: str) -> None:
    """Let the loop answer this text, with all that is attached."""
    chat.pending = Message("user", text, attachments=tuple(chat.attached))
    chat.attached = []


def take_up(chat: Chat, message: Message) -> None:
    """Attach to the next message what a message that was taken back has shown."""
    chat.attached = _distinct([*message.attachments, *chat.attached])


def attach_all(chat: Chat, files: Sequence[tuple[Kind, Path]]) -> None:
    """Attach files to the next message: all of them, or none."""
    chat.attached = _distinct([*chat.attached, *attach(chat.engine, chat.view, files)])


def image(chat: Chat, argument: str) -> None:
    """Attach pictures, or list what is attached."""
    _attach_named(chat, "image", argument)


def video(chat: Chat, argument: str) -> None:
    """Attach videos, or list what is attached."""
    _attach_named(chat, "video", argument)


def detach(chat: Chat, name: str) -> None:
    """Drop what is attached; a name that is not there is taken out of the conversation."""
    dropped = [a for a in chat.attached if not name or a.name == name]
    if dropped:
        chat.attached = [a for a in chat.attached if a not in dropped]
        chat.view.say(f"no longer attached: {named(dropped)}", "dim")
    elif not name:
        raise RequestError("nothing is attached; /detach NAME takes a file out of the conversation")
    elif chat.conversation.detach(name):
        autosave(chat)
        chat.view.say(f"{name} is no longer part of this conversation", "dim")
    else:
        raise RequestError(f"{name} is not attached; /image lists what is")


def names(chat: Chat) -> list[str]:
    """What /detach can name, the next message's first."""
    shown = [a for message in chat.conversation.messages for a in message.attachments]
    return list(dict.fromkeys(attachment.name for attachment in [*chat.attached, *shown]))


def _attach_named(chat: Chat, kind: Kind, argument: str) -> None:
    if not argument:
        _list(chat, kind)
        return
    chat.draft = f"/{kind} {argument}"
    attach_all(chat, [(kind, path) for path in argument_paths(argument)])
    chat.draft = ""


def _list(chat: Chat, kind: Kind) -> None:
    if not chat.attached:
        chat.view.say(f"nothing is attached; /{kind} PATH attaches to the next message", "dim")
        return
    rows = [(a.kind, media_line(a.media) if a.media else a.name) for a in chat.attached]
    chat.view.say(columns(rows))
    chat.view.say("  /detach drops them, /detach NAME one of them", "dim")


def _distinct(attachments: Iterable[Attachment]) -> list[Attachment]:
    """Each file once: a path that came back with the Up key is attached already."""
    return list(dict.fromkeys(attachments))
