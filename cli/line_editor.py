"""The prompt: line editing, history, completion and keys (prompt_toolkit).

Enter sends      Alt-Enter, Esc Enter, Ctrl-J: new line      \"\"\" ... \"\"\" block: Enter is a
new line inside  Ctrl-G: external editor                     pasted text keeps its lines
"""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from cli.interrupt import Row

QUOTES = '"""'
_KEPT_ENTRIES = 1000
_READ_BYTES = 1 << 20
_STYLE = Style.from_dict({"you": "bold ansicyan", "bottom-toolbar": "noreverse ansibrightblack"})
_PATH_STARTS = ("~/", "./", "../", "/")


class PromptHistory(History):
    """What was typed in earlier runs: one JSON string a line, private.

    Only the end of the file is read, however long it has become.

    A history that cannot be written is kept in memory; `problem` says why, once.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.problem = ""
        self._reported = False

    def load_history_strings(self) -> Iterable[str]:
        """Entries, latest first; unreadable lines are passed over."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _READ_BYTES))
                lines = file.read(_READ_BYTES).splitlines()
        except OSError:
            return
        for line in lines[: -_KEPT_ENTRIES - 1 : -1]:
            with suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, str):
                    yield entry

    def store_string(self, string: str) -> None:
        """Append one entry."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with os.fdopen(os.open(self._path, flags, 0o600), "wb") as file:
                file.write(json.dumps(string).encode() + b"\n")
        except OSError as error:
            if not self._reported:
                self._reported = True
                self.problem = f"input history not saved: {error.strerror} ({self._path})"


class ChatCompleter(Completer):
    """Commands at the start of the line, their arguments, and paths anywhere."""

    def __init__(
        self,
        commands: Callable[[], Iterable[tuple[str, str]]],
        arguments: Callable[[str], Iterable[str] | None],
    ) -> None:
        """`commands`: (name, help); `arguments(name)`: choices, or None for a path."""
        self._commands = commands
        self._arguments = arguments
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """What could follow the text before the cursor."""
        text = document.text_before_cursor
        word = text.split(" ")[-1].rsplit("\n", 1)[-1]
        if text == word and text.startswith("/") and "/" not in text[1:]:
            for name, meaning in self._commands():
                if name.startswith(text[1:]):
                    yield Completion(f"/{name}", -len(text), display_meta=meaning)
        elif text.startswith("/") and " " in text and "/" not in text.split(" ")[0][1:]:
            name, _, argument = text[1:].partition(" ")
            choices = self._arguments(name)
            if choices is None:
                yield from self._path(argument, complete_event)
            for choice in choices or ():
                if choice.startswith(argument):
                    yield Completion(choice, -len(argument))
        elif word.startswith(_PATH_STARTS):
            yield from self._path(word, complete_event)

    def _path(self, word: str, event: CompleteEvent) -> Iterable[Completion]:
        return self._paths.get_completions(Document(word), event)


class LineEditor:
    """Asks for messages; Ctrl-C on an empty line raises KeyboardInterrupt, Ctrl-D EOFError."""

    def __init__(
        self,
        history: History,
        completer: Completer,
        toolbar: Callable[[], str],
        *,
        colour: bool,
    ) -> None:
        depth = None if colour else ColorDepth.DEPTH_1_BIT
        self._row = Row()
        self._after_stop = False
        self._session: PromptSession[str] = PromptSession(
            history=history,
            completer=completer,
            key_bindings=_keys(self._row),
            multiline=True,
            prompt_continuation="      ",
            bottom_toolbar=lambda: FormattedText([("", toolbar())]),
            style=_STYLE,
            color_depth=depth,
            tempfile_suffix=".md",
            reserve_space_for_menu=6,
        )
        self._question: PromptSession[str] = PromptSession(
            history=InMemoryHistory(), style=_STYLE, color_depth=depth
        )

    def stopped(self) -> None:
        """Ctrl-C has ended something: presses that come with it do nothing at the next prompt."""
        self._after_stop = True

    def ask(self, draft: str = "") -> str:
        """What is typed next, quotes and all; `draft` is what stands in the line already."""
        if self._after_stop:
            self._after_stop = False
            self._row.begin()
        return self._session.prompt(FormattedText([("class:you", "you ▸ ")]), default=draft)

    def question(self, text: str) -> str:
        """A one-line answer to something the program asks."""
        return self._question.prompt(FormattedText([("class:you", f"{text} ▸ ")]))


def open_block(text: str) -> bool:
    """A triple-quoted block that has not been closed yet."""
    text = text.strip()
    return text.startswith(QUOTES) and not (len(text) >= 2 * len(QUOTES) and text.endswith(QUOTES))


def unquoted(text: str) -> str:
    """The text inside a triple-quoted block, or the text as it is."""
    inner = text.strip()
    if inner.startswith(QUOTES) and not open_block(inner):
        return inner[len(QUOTES) : -len(QUOTES)].strip("\n")
    return text


def _keys(row: Row) -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        if open_block(event.current_buffer.text):
            event.current_buffer.newline(copy_margin=False)
        else:
            event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-g")
    def _editor(event: KeyPressEvent) -> None:
        event.current_buffer.open_in_editor()

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _interrupt(event: KeyPressEvent) -> None:
        if row.goes_on():
            return
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt(), style="class:aborting")

    return keys
