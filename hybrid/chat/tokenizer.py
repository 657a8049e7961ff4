"""Token ids and text: encoding that keeps control tokens apart, decoding that never breaks UTF-8.

Ordinary text and control tokens use separate tables, so `encode` cannot produce a control token
whatever a user types; only text of a template goes through `encode_with_specials`.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hybrid.chat.bpe import build_bpe, cut_positions
from hybrid.chat.vocabulary import Vocabulary
from hybrid.errors import CheckpointError, RequestError

STOP_NAMES = ("<|im_end|>", "[EOS]", "[EOT]")  # spec §7; by name, a config eos may be wrong


class Tokenizer:
    """The tokens of one checkpoint."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        first = len(vocabulary.base)
        self._bpe = build_bpe(vocabulary.base)
        self._bytes = vocabulary.base + tuple(name.encode() for name in vocabulary.special)
        self._first_special = first
        self._names = vocabulary.special
        self._ids = {name: first + slot for slot, name in enumerate(vocabulary.special)}
        self._control = _any_of(vocabulary.special)
        self.vocab_size = len(self._bytes)
        self.stop_ids = frozenset(self._ids[name] for name in STOP_NAMES if name in self._ids)
        # None where a vocabulary has no such token.
        self.think_id = self._ids.get("<think>")
        self.end_think_id = self._ids.get("</think>")
        self.tool_section_id = self._ids.get("<|tool_calls_section_begin|>")
        self.end_tool_section_id = self._ids.get("<|tool_calls_section_end|>")
        self.tool_call_id = self._ids.get("<|tool_call_begin|>")
        self.tool_arguments_id = self._ids.get("<|tool_call_argument_begin|>")
        self.end_tool_call_id = self._ids.get("<|tool_call_end|>")
        if not self.stop_ids:
            raise CheckpointError(
                "tokenizer_config.json names none of <|im_end|>, [EOS], [EOT]; "
                "an answer could never end"
            )

    @classmethod
    def from_dir(cls, model_dir: str | Path) -> "Tokenizer":
        """Read `tiktoken.model` and `tokenizer_config.json`; CheckpointError if they are wrong."""
        return cls(Vocabulary.from_dir(Path(model_dir)))

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, all of it ordinary: no input yields a control token."""
        text = _without_surrogates(text)
        return self._encode_plain(text, list(cut_positions(text)))

    def encode_with_specials(self, rendered: str, guard: str = "") -> list[int]:
        """Return the ids of a rendered template, in which names of control tokens are control.

        A `guard` inside a name keeps it ordinary; guards themselves leave no trace in the ids.
        """
        rendered = _without_surrogates(rendered)
        segments = list(self._segments(rendered, guard))
        cuts = list(cut_positions(rendered.replace(guard, "") if guard else rendered))
        ids: list[int] = []
        start = 0
        for text, control in segments:
            end = start + len(text)
            ids += self._encode_plain(text, [cut - start for cut in cuts if start < cut < end])
            start = end
            if control:
                ids.append(self._ids[control])
                start += len(control)
        return ids

    def _segments(self, rendered: str, guard: str) -> Iterator[tuple[str, str]]:
        """Yield (ordinary text without guards, the control token behind it or "")."""
        start = 0
        for match in self._control.finditer(rendered):
            yield _unguarded(rendered[start : match.start()], guard), match.group()
            start = match.end()
        yield _unguarded(rendered[start:], guard), ""

    def _encode_plain(self, text: str, cuts: Sequence[int]) -> list[int]:
        ids: list[int] = []
        for start, end in zip((0, *cuts), (*cuts, len(text)), strict=True):
            ids += self._bpe.encode(text[start:end]).ids
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Return the text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        kept = (i for i in ids if not (skip_special and self.is_special(i)))
        return b"".join(map(self.token_bytes, kept)).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes a token stands for; a control token stands for its name."""
        if not 0 <= token_id < self.vocab_size:
            raise RequestError(
                f"token id {token_id} is outside the vocabulary of {self.vocab_size}",
                param="token_ids",
            )
        return self._bytes[token_id]

    def is_special(self, token_id: int) -> bool:
        """Say whether an id lies in the 256 slots of control tokens."""
        return self._first_special <= token_id < self.vocab_size

    def id_of(self, name: str) -> int:
        """Return the id of a control token; CheckpointError if this tokenizer has none such."""
        if name not in self._ids:
            raise CheckpointError(f"tokenizer_config.json names no token {name[:80]!r}")
        return self._ids[name]

    def name_of(self, token_id: int) -> str:
        """Return the name of a control token."""
        if not self.is_special(token_id):
            raise RequestError(f"token id {token_id} is not a control token", param="token_ids")
        return self._names[token_id - self._first_special]

    @property
    def special_names(self) -> tuple[str, ...]:
        """The names of all 256 control tokens in id order."""
        return self._names


class StreamDecoder:
    """Decodes one token at a time; a character split over tokens waits for its last byte."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Return the text that this token completes, possibly none."""
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """Return U+FFFD for a character that never came to its end, and start afresh."""
        text = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return text


def _any_of(names: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern of all names, the longest first; two characters rule most of them out."""
    endings: dict[str, list[str]] = {}
    for name in sorted(names, key=len, reverse=True):
        endings.setdefault(re.escape(name[:2]), []).append(re.escape(name[2:]))
    return re.compile("|".join(f"{start}(?:{'|'.join(of)})" for start, of in endings.items()))


def _unguarded(text: str, guard: str) -> str:
    return text.replace(guard, "") if guard else text


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates (JSON can carry them, UTF-8 cannot) by U+FFFD, as tiktoken does."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
