"""Byte-pair encoding in Kimi's way, done by `tokenizers`.

    text -> slices -> pieces (Split by PATTERN) -> bytes as letters (ByteLevel) -> BPE -> ids

tiktoken merges the adjacent pair whose joined bytes have the lowest rank. `tokenizers` wants a
list of merges instead. We give it every way to cut a token into two tokens, in rank order, so a
pair merges exactly if its joined bytes are a token, and at that token's rank: the same rule.
(Cuts of one token do not compete: of a token made of tokens of lower rank, as all are in a trained
vocabulary, merging only ever meets the one cut that building it alone would end with.)
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from hybrid.errors import CheckpointError

# Spec §4.2. `&&` is class intersection in Oniguruma, which `tokenizers` uses.
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join(
    [
        r"[\p{Han}]+",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIX}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIX}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)

# Spec §4.4: the official encoder cuts its input here, and tokens never cross a cut.
SLICE_CHARS = 400_000
RUN_CHARS = 25_000

SPLITS_PER_TOKEN = 16  # the published vocabulary has 1.8

_RUNS = re.compile(r"\s+|\S+")


def byte_letters() -> list[str]:
    """Return the printable letter that ByteLevel writes for each of the 256 bytes."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {value: chr(value) for value in plain}
    shifted = (value for value in range(256) if value not in letters)
    letters.update({value: chr(256 + order) for order, value in enumerate(shifted)})
    return [letters[value] for value in range(256)]


def build_bpe(base: Sequence[bytes]) -> Tokenizer:
    """Return a tokenizer over the ordinary tokens; it knows no control token at all."""
    letters = byte_letters()
    spelled = ["".join([letters[value] for value in token]) for token in base]
    vocab = {token: rank for rank, token in enumerate(spelled)}
    merges = _all_splits(spelled, vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _all_splits(tokens: Sequence[str], vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return every way to cut a token into two tokens, by rank of the token."""
    limit = SPLITS_PER_TOKEN * len(tokens)
    splits: list[tuple[str, str]] = []
    for token in tokens:
        splits += [
            (head, tail)
            for cut in range(1, len(token))
            if (head := token[:cut]) in vocab and (tail := token[cut:]) in vocab
        ]
        if len(splits) > limit:
            raise CheckpointError(
                f"tiktoken.model has more than {limit} ways to build its {len(tokens)} tokens; "
                "no trained vocabulary looks like this, download the file again"
            )
    return splits


def cut_positions(text: str) -> Iterator[int]:
    """Yield, in order, where the official encoder cuts `text` (spec §4.4)."""
    if len(text) <= RUN_CHARS:
        return
    for start in range(0, len(text), SLICE_CHARS):
        if start:
            yield start
        for run in _RUNS.finditer(text, start, min(start + SLICE_CHARS, len(text))):
            yield from range(run.start() + RUN_CHARS, run.end(), RUN_CHARS)
