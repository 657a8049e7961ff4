"""What one interactive chat holds: the model, the conversation, and what the next step is."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cli import sessions
from cli.attachments import Attachment
from cli.conversation import Conversation, Message
from cli.sessions import SessionFile
from cli.settings import Settings
from cli.turn import Recording, View
from hybrid.errors import KimiLocalError

if TYPE_CHECKING:
    from hybrid import Engine


@dataclass(slots=True)
class Totals:
    """Sums over the answers of this run."""

    answers: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def add(self, recording: Recording) -> None:
        """Count one answer."""
        usage = recording.usage
        self.answers += 1
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens
        self.seconds += recording.figures.total_s


@dataclass(slots=True)
class Chat:
    """A running chat.

    `pending` is a message to answer next, `draft` a text to put into the prompt, `attached` what
    the next message shows.
    """

    engine: "Engine"
    view: View
    conversation: Conversation
    session: SessionFile
    settings: Settings
    last: Recording | None = None
    totals: Totals = field(default_factory=Totals)
    pending: Message | None = None
    draft: str = ""
    attached: list[Attachment] = field(default_factory=list)
    unsaved: bool = False
    leaving: bool = False


def autosave(chat: Chat) -> None:
    """Save the session; if that fails say so and let the chat go on."""
    if not chat.conversation.messages and chat.session.seen is None:
        return  # nothing was ever said: leave no empty file
    try:
        moved = sessions.save(chat.session, chat.conversation)
    except KimiLocalError as error:
        chat.unsaved = True
        chat.view.say(f"{error}; the chat goes on, the next answer tries again", "warn")
        return
    chat.unsaved = False
    if moved:
        name = chat.session.name
        chat.view.say(f"another chat changed this session; this one is kept as {name}", "warn")
