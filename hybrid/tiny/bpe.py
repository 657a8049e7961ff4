"""A small byte-level vocabulary in the published file format, the same on every machine.

`tiktoken.model` is lines of "base64(token bytes) SP rank". The first 256 ranks are the single
bytes in GPT-2's order (printable ones first: '!' is 0, ' ' is 220), then come the merges that a
short text supports best. Then, not in the file, 256 special slots (spec §4.3).
"""

import base64
import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from hybrid.chat.vocabulary import SPECIAL_SLOTS
from hybrid.errors import ConfigError
from hybrid.tiny.text import TEXT

BYTES = 256
WORDS = re.compile(r" ?[^\W\d_]+|\d{1,3}| ?[^\w\s]+|_+|\s+")

NAMED: dict[int, str] = {
    0: "[BOS]",
    1: "[EOS]",
    2: "<|im_end|>",
    3: "<|im_user|>",
    4: "<|im_assistant|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    9: "[EOT]",
    10: "<|im_system|>",
    11: "<|tool_calls_section_begin|>",
    12: "<|tool_calls_section_end|>",
    13: "<|tool_call_begin|>",
    14: "<|tool_call_argument_begin|>",
    15: "<|tool_call_end|>",
    17: "<|im_middle|>",
    18: "<|media_begin|>",
    19: "<|media_content|>",
    20: "<|media_end|>",
    21: "<|media_pad|>",
    22: "<think>",
    23: "</think>",
    254: "[UNK]",
    255: "[PAD]",
}
"""Offset from the end of the base vocabulary -> name; the other slots are reserved."""

NOT_SPECIAL = frozenset({11, 12, 13, 14, 15, 22, 23})  # tool and think markers


@functools.cache
def build_vocabulary(base_size: int) -> tuple[bytes, ...]:
    """Return `base_size` tokens by rank; raises ConfigError if the text supports fewer."""
    tokens = [bytes([b]) for b in _byte_order()]
    if base_size < len(tokens):
        raise ConfigError(
            f"vocab_size is {base_size + SPECIAL_SLOTS}; 256 bytes and 256 special slots need 512"
        )
    words = Counter(tuple(bytes([b]) for b in word.encode()) for word in WORDS.findall(TEXT))
    known = set(tokens)
    while len(tokens) < base_size:
        pair = _best_pair(words)
        if pair is None:
            raise ConfigError(
                f"vocab_size is {base_size + SPECIAL_SLOTS}; "
                f"the built-in text supports at most {len(tokens) + SPECIAL_SLOTS}"
            )
        words = _merge(words, pair)
        if pair[0] + pair[1] not in known:
            known.add(pair[0] + pair[1])
            tokens.append(pair[0] + pair[1])
    return tuple(tokens)


def vocabulary_file(tokens: Sequence[bytes]) -> bytes:
    """Write tokens as `tiktoken.model` does."""
    lines = (base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))
    return b"".join(lines)


def special_names(base_size: int) -> tuple[str, ...]:
    """Name the 256 slots after the base vocabulary, in id order."""
    return tuple(
        NAMED.get(offset, f"<|reserved_token_{base_size + offset}|>")
        for offset in range(SPECIAL_SLOTS)
    )


def tokenizer_config(base_size: int) -> dict[str, Any]:
    """Build tokenizer_config.json: the named slots and their `special` flag."""
    decoder = {
        str(base_size + offset): {
            "content": name,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": offset not in NOT_SPECIAL,
        }
        for offset, name in NAMED.items()
    }
    return {
        "added_tokens_decoder": decoder,
        "bos_token": "[BOS]",
        "clean_up_tokenization_spaces": False,
        "eos_token": "[EOS]",
        "extra_special_tokens": {},
        "model_max_length": int(1e30),
        "pad_token": "[PAD]",
        "tokenizer_class": "TikTokenTokenizer",
        "unk_token": "[UNK]",
    }


def _byte_order() -> Iterator[int]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    yield from printable
    yield from (b for b in range(BYTES) if b not in printable)


def _best_pair(words: Counter[tuple[bytes, ...]]) -> tuple[bytes, bytes] | None:
    pairs: Counter[tuple[bytes, bytes]] = Counter()
    for word, count in words.items():
        for pair in itertools.pairwise(word):
            pairs[pair] += count
    return min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)


def _merge(
    words: Counter[tuple[bytes, ...]], pair: tuple[bytes, bytes]
) -> Counter[tuple[bytes, ...]]:
    merged: Counter[tuple[bytes, ...]] = Counter()
    for word, count in words.items():
        merged[_merge_word(word, pair)] += count
    return merged


def _merge_word(word: tuple[bytes, ...], pair: tuple[bytes, bytes]) -> tuple[bytes, ...]:
    parts: list[bytes] = []
    for piece in word:
        if parts and (parts[-1], piece) == pair:
            parts[-1] = parts[-1] + piece
        else:
            parts.append(piece)
    return tuple(parts)
