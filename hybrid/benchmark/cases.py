"""What is timed, in llama-bench's words, and the token ids it runs on.

    pp512           a prompt of 512 tokens           tokens/s of the prefill
    tg128           128 tokens, one after the other  tokens/s of the decode
    tg128 @ d4096   the same behind 4,096 tokens that are in the KV cache already

Caches make the prompt part of the measurement, hence three kinds:

    rotating   each repetition has its own prompt: what a user sees; its median is the headline
    warm       the same prompt again and again: the best that an expert cache can do
    cold       a model just loaded for every repetition, nothing run before: what is first seen
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from hybrid.chat.vocabulary import SPECIAL_SLOTS

Kind = Literal["rotating", "warm", "cold"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_DEPTH, _TIMED = 0, 1  # streams of random numbers
_DIGITS = 16  # of an output hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to time: a prompt or generated tokens, never both."""

    kind: Kind = "rotating"
    prompt: int = 0
    generated: int = 0
    depth: int = 0  # tokens in the KV cache before

    @property
    def label(self) -> str:
        """As llama-bench names it."""
        name = f"pp{self.prompt}" if self.prompt else f"tg{self.generated}"
        return f"{name} @ d{self.depth}" if self.depth else name

    @property
    def tokens(self) -> int:
        """How many are timed."""
        return self.prompt or self.generated

    @property
    def positions(self) -> int:
        """Of the KV cache that it needs."""
        return self.depth + self.tokens


def all_cases(
    prompts: Sequence[int], generated: Sequence[int], depths: Sequence[int], kinds: Sequence[Kind]
) -> list[Case]:
    """Every combination; a length of 0 is none. Cold ones last: each loads the model anew."""
    return [
        case
        for kind in sorted(set(kinds), key=KINDS.index)
        for depth in dict.fromkeys(depths)
        for case in (
            *(Case(kind=kind, prompt=n, depth=depth) for n in dict.fromkeys(prompts) if n),
            *(Case(kind=kind, generated=n, depth=depth) for n in dict.fromkeys(generated) if n),
        )
    ]


def token_ids(case: Case, repetition: int, vocab_size: int, seed: int) -> list[int]:
    """The ids of a repetition, no special ones among them; -1 is the warm-up.

    Of a warm case all repetitions have the same; no two cases share any.
    """
    own = 0 if case.kind == "warm" else 2 + repetition
    key = [seed, _TIMED, own, case.prompt, case.generated, case.depth]
    return _draw(key, case.tokens, vocab_size)


def depth_ids(case: Case, vocab_size: int, seed: int) -> list[int]:
    """The ids that are in the KV cache before a case is timed."""
    return _draw([seed, _DEPTH], case.depth, vocab_size)


def output_hash(tokens: Sequence[int]) -> str:
    """Of greedy token ids: equal wherever the same model was computed the same way."""
    return hashlib.sha256(np.asarray(tokens, "<i8").tobytes()).hexdigest()[:_DIGITS]


def combined_hash(hashes: Sequence[str]) -> str:
    """Of several outputs in order."""
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:_DIGITS]


def _draw(key: list[int], count: int, vocab_size: int) -> list[int]:
    ordinary = max(1, vocab_size - SPECIAL_SLOTS)  # the special ones come last (spec §5)
    ids: list[int] = np.random.default_rng(key).integers(0, ordinary, count).tolist()
    return ids
