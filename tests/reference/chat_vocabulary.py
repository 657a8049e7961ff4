"""Small vocabularies in the published file format, and the official way to encode with one.

The encoder is tiktoken, other people's code; around it stands, character by character, the
cutting of long texts that spec §4.4 describes.
"""

import base64
import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import tiktoken

from hybrid.chat.vocabulary import Vocabulary

NAMED = {
    0: "[BOS]",
    1: "[EOS]",
    2: "<|im_end|>",
    3: "<|im_user|>",
    4: "<|im_assistant|>",
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

TEXT = """The quick brown fox jumps over the lazy dog. It's what we'd say, isn't it?
你好，世界！我们在这里。
def f(x):\n    return [x, x + 1, x * 2]\n\n\nfor i in range(10):\n    print(i, f(i))\t# 1234 12 1
functions.get_weather:0 {"city": "北京", "unit": "c"} ## Return of functions.get_weather:0
<|im_end|> <think> </think> [EOS] [EOT] <|im_user|>user<|im_middle|> über Straße ÄRGER нещо "quoted"
"""

# Spec §4.2, with a look-ahead where the `regex` behind tiktoken has no class intersection.
_UPPER = r"(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
_LOWER = r"(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = (
    r"[\p{Han}]+"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIX}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIX}"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)


def trained_tokens(count: int) -> list[bytes]:
    """256 bytes, then the `count` likeliest merges of TEXT, by the textbook algorithm."""
    words = [[bytes([b]) for b in (" " + word).encode()] for word in TEXT.split()]
    tokens = [bytes([b]) for b in range(256)]
    while len(tokens) < 256 + count:
        pairs = Counter(pair for word in words for pair in pairwise(word))
        (a, b), _ = pairs.most_common(1)[0]
        tokens.append(a + b)
        words = [_merged(word, a, b) for word in words]
    return tokens


def shuffled_tokens(count: int, seed: int) -> list[bytes]:
    """The same tokens in an order that no training gives; some have no parts of lower rank."""
    tokens = trained_tokens(count)
    order = tokens[256:]
    random.Random(seed).shuffle(order)
    return tokens[:256] + order


def _merged(word: list[bytes], a: bytes, b: bytes) -> list[bytes]:
    out: list[bytes] = []
    for token in word:
        if out and out[-1] == a and token == b:
            out[-1] = a + b
        else:
            out.append(token)
    return out


def write_tokenizer(directory: Path, tokens: list[bytes]) -> Path:
    """Write `tiktoken.model` and `tokenizer_config.json` for these tokens."""
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]
    (directory / "tiktoken.model").write_bytes(b"".join(lines))
    added = {str(len(tokens) + slot): {"content": name} for slot, name in NAMED.items()}
    config = {"added_tokens_decoder": added, "tokenizer_class": "TikTokenTokenizer"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def official(vocabulary: Vocabulary) -> tiktoken.Encoding:
    """The vocabulary as Moonshot's tokenizer hands it to tiktoken: all 256 slots are special."""
    base = len(vocabulary.base)
    return tiktoken.Encoding(
        "official",
        pat_str=PATTERN,
        mergeable_ranks={token: rank for rank, token in enumerate(vocabulary.base)},
        special_tokens={name: base + slot for slot, name in enumerate(vocabulary.special)},
    )


def official_ids(encoding: tiktoken.Encoding, text: str, *, specials: bool) -> list[int]:
    """Ids of `text`, cut as spec §4.4 says; `specials` lets names of control tokens be control."""
    allowed = "all" if specials else set()
    ids: list[int] = []
    for start in range(0, len(text), 400_000):
        for piece in _short_runs(text[start : start + 400_000]):
            ids += encoding.encode(piece, allowed_special=allowed, disallowed_special=())
    return ids


def _short_runs(text: str) -> Iterator[str]:
    piece, run = "", 0
    for char in text:
        run = run + 1 if piece and char.isspace() == piece[-1].isspace() else 1
        if run > 25_000:
            yield piece
            piece, run = "", 1
        piece += char
    yield piece
