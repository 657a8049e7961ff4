"""Text from a model or a file, made safe to show: it must not drive the terminal.

A model can print what it has read, and a session file can come from anywhere. Escape sequences
in such text could retitle the window, write the clipboard or hide what was said.

    ESC [ ... @-~              control sequence: removed whole
    ESC ] P X ^ _ ... BEL|ST   string sequence (title, clipboard, hyperlink): removed whole
    ESC x                      any other escape: both characters removed
    U+0080-U+009F              the same sequences in one character (CSI, OSC, ...)
    other C0, DEL              removed; newline and tab stay

A sequence ends at its terminator or at the end of the line, so a broken one cannot swallow the
rest of an answer. State is kept between pieces because a stream may split a sequence anywhere.
"""

from enum import Enum

_KEPT = {"\n", "\t"}
_STRING_STARTS = {"]", "P", "X", "^", "_"}
_C1_STRING_STARTS = {"\x90", "\x98", "\x9d", "\x9e", "\x9f"}
_INTERMEDIATE = range(0x20, 0x30)  # "ESC ( B": an escape with more to come


class _In(Enum):
    TEXT = 0
    ESCAPE = 1
    CONTROL = 2
    STRING = 3


class Cleaner:
    """Removes control characters and escape sequences from text that comes in pieces."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = _In.TEXT

    def feed(self, piece: str) -> str:
        """The part of `piece` that may be shown."""
        if self._state is _In.TEXT and piece.isprintable():
            return piece
        return "".join(character for character in piece if self._shows(character))

    def _shows(self, character: str) -> bool:
        if character == "\n":
            self._state = _In.TEXT
            return True
        if self._state is _In.TEXT:
            return self._text(character)
        self._state = self._inside(character)
        return False

    def _text(self, character: str) -> bool:
        if character == "\x1b":
            self._state = _In.ESCAPE
        elif character == "\x9b":
            self._state = _In.CONTROL
        elif character in _C1_STRING_STARTS:
            self._state = _In.STRING
        return character in _KEPT or not _is_control(character)

    def _inside(self, character: str) -> _In:
        if character == "\x1b":  # also the first half of ST, "ESC \"
            return _In.ESCAPE
        if self._state is _In.STRING:
            return _In.TEXT if character in "\x07\x9c" else _In.STRING
        if self._state is _In.CONTROL:
            return _In.TEXT if "@" <= character <= "~" else _In.CONTROL
        if character == "[":
            return _In.CONTROL
        if character in _STRING_STARTS:
            return _In.STRING
        return _In.ESCAPE if ord(character) in _INTERMEDIATE else _In.TEXT


def clean(text: str) -> str:
    """A whole text made safe to show."""
    return Cleaner().feed(text)


def one_line(text: str) -> str:
    """A message as exactly one line, whatever file name or model text it quotes."""
    return " ".join(clean(text).split())


def _is_control(character: str) -> bool:
    code = ord(character)
    return code < 0x20 or 0x7F <= code <= 0x9F
