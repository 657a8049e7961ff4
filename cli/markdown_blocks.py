"""Markdown that comes in pieces, cut where it can no longer change.

    finished: printed once, above          rest: redrawn in the live tail
    [para] [list] [code lines ...]         the block still being written

A block is finished when another has begun after it. An open code fence is finished line by line,
and a list item by item, so that a long one is not held back.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

PieceKind = Literal["block", "item", "code"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A finished part. An "item" or a "code" line belongs to its predecessor: no gap between."""

    kind: PieceKind
    text: str
    language: str = ""
    joined: bool = False  # continues the piece before it


def parser() -> MarkdownIt:
    """The dialect: CommonMark with tables and strikethrough; HTML is text, it must not vanish."""
    dialect = MarkdownIt().enable(["strikethrough", "table"])
    return dialect.disable(["html_block", "html_inline"])


class BlockSplitter:
    """Feed text, take finished pieces; `rest` is what may still change."""

    def __init__(self) -> None:
        self._parser = parser()
        self._fence: tuple[str, str] | None = None  # (closing marker, language)
        self._joined = False
        self.rest = ""

    def feed(self, text: str) -> list[Piece]:
        """Pieces that `text` has finished."""
        self.rest += text
        return self._take() if "\n" in text else []

    def close(self) -> list[Piece]:
        """Everything left, at the end of the text."""
        pieces = self._take()
        if self._fence is not None:
            if self.rest:
                pieces.append(self._code(self.rest))
        elif self.rest.strip():
            kind: PieceKind = "item" if self._joined else "block"
            pieces.append(Piece(kind, self.rest, joined=self._joined))
        self.rest, self._fence, self._joined = "", None, False
        return pieces

    @property
    def language(self) -> str | None:
        """The language of the open fence; None outside code."""
        return self._fence[1] if self._fence else None

    def _take(self) -> list[Piece]:
        pieces: list[Piece] = []
        while True:
            before = self.rest
            pieces += self._code_lines() if self._fence else self._blocks()
            if self.rest == before:
                return pieces

    def _code_lines(self) -> list[Piece]:
        pieces: list[Piece] = []
        while self._fence and "\n" in self.rest:
            line, self.rest = self.rest.split("\n", 1)
            if _closes(line, self._fence[0]):
                self._fence, self._joined = None, False
            else:
                pieces.append(self._code(line))
        return pieces

    def _code(self, line: str) -> Piece:
        piece = Piece("code", line, self._fence[1] if self._fence else "", self._joined)
        self._joined = True
        return piece

    def _blocks(self) -> list[Piece]:
        """Take the first block if another follows it; of an open list all items but the last."""
        complete = self.rest[: self.rest.rfind("\n") + 1]
        lines = [f"{line}\n" for line in complete.split("\n")[:-1]]  # only \n counts in `map`
        tokens = self._parser.parse(complete)
        tops = [token for token in tokens if token.level == 0 and token.map and token.nesting >= 0]
        if not tops:
            return []
        if tops[0].type == "fence":
            self._enter(lines, tops[0])
            return []
        following = _start(tops[1]) if len(tops) > 1 else None
        if tops[0].type in ("bullet_list_open", "ordered_list_open"):
            end = _end(tops[0]) if following is None else following
            inner = [t for t in tokens if t.map and _start(t) < end]
            return self._items(lines, inner, following)
        if following is None:
            return []
        self._cut(lines, following)
        return [Piece("block", "".join(lines[_start(tops[0]) : following]))]

    def _items(self, lines: list[str], tokens: list[Token], following: int | None) -> list[Piece]:
        """The items of a list up to the block that follows it, or up to its last item."""
        marks = [_start(t) for t in tokens if t.type == "list_item_open" and t.level == 1]
        if following is not None:
            marks.append(following)
        pieces = []
        for begin, end in pairwise(marks):
            pieces.append(Piece("item", "".join(lines[begin:end]), joined=self._joined))
            self._joined = True
        if following is not None:
            self._joined = False
        self._cut(lines, marks[-1])
        return pieces

    def _enter(self, lines: list[str], fence: Token) -> None:
        language = fence.info.split()[0] if fence.info.split() else ""
        self._fence, self._joined = (fence.markup, language), False
        self._cut(lines, _start(fence) + 1)

    def _cut(self, lines: list[str], start: int) -> None:
        self.rest = self.rest[sum(map(len, lines[:start])) :]


def _start(token: Token) -> int:
    return token.map[0] if token.map else 0


def _end(token: Token) -> int:
    return token.map[1] if token.map else 0


def _closes(line: str, marker: str) -> bool:
    text = line.strip()
    return len(text) >= len(marker) and set(text) == {marker[0]}
