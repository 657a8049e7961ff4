"""The interactive chat: ask, answer, save, until the user leaves."""

from collections.abc import Iterator, Sequence

from cli import chat_commands, media_commands, transcript
from cli.attachments import Attachment, named
from cli.chat_state import Chat, autosave
from cli.conversation import Message
from cli.figures import gauge, percent, stats_line
from cli.interrupt import Interrupt, ignored, raising, silent_keyboard
from cli.line_editor import ChatCompleter, LineEditor, PromptHistory, unquoted
from cli.turn import Recording, stream
from hybrid.errors import KimiLocalError

_DRAFT_LENGTH = 1000
_HINT = "Enter sends · Alt-Enter new line · /help"


def run(chat: Chat) -> int:
    """Talk until the user leaves; the exit code."""
    history = PromptHistory(chat.settings.history_file)
    if chat.conversation.messages:
        transcript.recall(chat.view, chat.session.name, chat.conversation)
    editor = _editor(chat, history)
    with ignored():
        try:
            for text in _typed(chat, editor):
                if history.problem:
                    chat.view.say(history.problem, "warn")
                    history.problem = ""
                _take(chat, editor, text)
        finally:
            if chat.unsaved:
                autosave(chat)
    return 1 if chat.unsaved else 0


def _typed(chat: Chat, editor: LineEditor) -> Iterator[str]:
    """What the user sends, until /exit, Ctrl-D, or Ctrl-C twice on an empty line."""
    armed = False
    while not chat.leaving:
        draft, chat.draft = chat.draft, ""
        try:
            text = editor.ask(draft)
        except EOFError:
            return
        except KeyboardInterrupt:
            if armed:
                return
            armed = True
            chat.view.say("press Ctrl-C again to leave", "dim")
            continue
        armed = False
        yield text


def _take(chat: Chat, editor: LineEditor, text: str) -> None:
    """A command or a message; a mistake is one line, and the chat goes on."""
    if not text.strip():
        return
    try:
        with raising():  # a large video takes its time to open
            _understand(chat, text)
    except KimiLocalError as error:
        chat.view.say(str(error), "error")
    if chat.pending is not None:
        pending, chat.pending = chat.pending, None
        chat.conversation.messages.append(pending)
        _answer(chat, editor)
        while chat.last is not None and chat.last.tool_calls and _tool_results(chat, editor):
            _answer(chat, editor)


def _understand(chat: Chat, text: str) -> None:
    """A command, a message with the files that it names, or a quoted text, sent as it is."""
    inner = unquoted(text)
    if inner != text:
        if inner.strip():
            media_commands.send(chat, inner)
    elif chat_commands.is_command(text):
        chat_commands.run(chat, text)
    else:
        media_commands.compose(chat, text)


def _answer(chat: Chat, editor: LineEditor) -> None:
    """One answer. Whatever ends it, what came of it is kept and saved."""
    recording = chat.last = Recording()
    failed = False
    with Interrupt() as interrupt, silent_keyboard():
        try:
            stream(chat.engine, chat.conversation, chat.view, recording, interrupt)
        except KimiLocalError as error:
            failed = True
            chat.view.say(str(error), "error")
        except KeyboardInterrupt:
            pass  # a second Ctrl-C: the answer is cut here
        finally:
            interrupt.over()
            _keep(chat, recording)
        if not failed:
            _report(chat, recording)
    if interrupt.requested:
        editor.stopped()


def _keep(chat: Chat, recording: Recording) -> None:
    if recording.empty and recording.finish_reason == "cancelled":
        _give_back(chat)
        return
    chat.conversation.messages.append(recording.message())
    usage = recording.usage
    if recording.counted is not None:
        chat.conversation.context_tokens = usage.prompt_tokens + usage.completion_tokens
    chat.totals.add(recording)
    chat.unsaved = True
    autosave(chat)


def _give_back(chat: Chat) -> None:
    """The message of an answer that did not come stands in the prompt again."""
    message = chat.conversation.take_back()
    assert message is not None
    media_commands.take_up(chat, message)
    text = message.content  # the Up key brings a long one back
    chat.draft = text if len(text) <= _DRAFT_LENGTH else ""


def _report(chat: Chat, recording: Recording) -> None:
    remark = _remark(chat, recording)
    if remark:
        chat.view.say(remark, "warn")
    if not recording.empty:
        line = stats_line(recording.figures, recording.usage, chat.engine.kv_tokens)
        chat.view.say(f"  {line}", "dim")
        chat.view.say("")


def _remark(chat: Chat, recording: Recording) -> str:
    """What a reader must know about an answer that did not end by itself, or said nothing."""
    if recording.finish_reason == "cancelled":
        return "stopped before an answer" if recording.empty else "stopped"
    if recording.finish_reason == "length":
        limit = chat.conversation.sampling.get("max_tokens", chat.engine.kv_tokens)
        if recording.usage.completion_tokens >= limit:
            where = "" if recording.content else " while thinking"
            return f"cut at max_tokens ({limit}){where}; /set max_tokens changes it"
        return "the context is full; /clear starts a new conversation"
    if not (recording.content or recording.tool_calls):
        return "the model ended its turn without an answer; /retry asks again"
    return ""


def _tool_results(chat: Chat, editor: LineEditor) -> bool:
    """Show the calls and let the user play the tool; False if all were skipped."""
    assert chat.last is not None
    given = False
    for call in chat.last.tool_calls:
        chat.view.say(f"→ {call.name} {call.arguments}", "warn")
        try:
            result = editor.question("  result (Enter skips)")
        except (KeyboardInterrupt, EOFError):
            return given
        if result.strip():
            given = True
            chat.conversation.messages.append(Message("tool", result, tool_call_id=call.id))
    return given


def _short_list(attached: Sequence[Attachment]) -> str:
    return named(attached) if len(attached) == 1 else f"{len(attached)} files"


def _editor(chat: Chat, history: PromptHistory) -> LineEditor:
    def arguments(name: str) -> list[str] | None:
        command = chat_commands.COMMANDS.get(name)
        if command is None:
            return []
        return None if command.choices is None else list(command.choices(chat))

    def toolbar() -> str:
        used, capacity = chat.conversation.context_tokens, chat.engine.kv_tokens
        context = f" · context {gauge(used, capacity)} {percent(used, capacity)}" if used else ""
        mode = "" if chat.conversation.thinking else " · instant"
        attached = f" · with {_short_list(chat.attached)}" if chat.attached else ""
        return f"{_HINT}{mode}{context}{attached}"

    commands = [(c.name, c.help) for c in chat_commands.COMMANDS.values()]
    completer = ChatCompleter(lambda: commands, arguments)
    return LineEditor(history, completer, toolbar, colour=chat.settings.colour)
