"""The vocabulary: 256 bytes, then the byte pairs that our own conversations support best.

Learnt by `tokenizers` over the pieces that Kimi's pattern cuts, so no token crosses a cut. Digits
are masked first: numbers stay one token a digit, which is what makes arithmetic easy to learn.
"""

import re

from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from hybrid.chat.bpe import PATTERN, byte_letters
from hybrid.chat.template import ChatTemplate
from hybrid.chat.vocabulary import Vocabulary
from hybrid.errors import ConfigError
from hybrid.tiny.bpe import build_vocabulary, special_names
from nano.data import words
from nano.data.draw import Draw
from nano.data.mix import FAMILIES
from nano.data.render import flat_text
from nano.data.sample import Sample

SAMPLES = 300  # conversations of each family
EMPHASIS = 100  # each word of ours becomes one token, with a space before it or without
_CONTROL = re.compile(r"<\|[a-z0-9_]+\|>|</?think>")
_DIGITS = re.compile(r"\d+")


def learnt(base_size: int, seed: int = 0) -> Vocabulary:
    """Learn `base_size` tokens; ConfigError if the conversations support fewer."""
    template = ChatTemplate.built_in()
    texts = [
        _DIGITS.sub(" ", part)
        for family, make in FAMILIES.items()
        if not family.startswith("needle ") or family == "needle 200"
        for n in range(SAMPLES)
        for part in _said(template, make(Draw.of(f"{seed}/words/{family}/{n}")))
    ]
    texts += [f"{mark}{word}" for word in words.ALL for mark in ("", " ")] * EMPHASIS
    # single bytes in the published order, then every merge in the order of learning
    single = build_vocabulary(256)
    merged = _merges(texts, base_size - len(single))
    if len(single) + len(merged) != base_size:
        raise ConfigError(f"the conversations support {256 + len(merged)} tokens, not {base_size}")
    return Vocabulary((*single, *merged), special_names(base_size))


def _said(template: ChatTemplate, sample: Sample) -> list[str]:
    """The ordinary text of a conversation, between its control tokens."""
    return _CONTROL.split(flat_text(template, sample))


def _merges(texts: list[str], count: int) -> list[bytes]:
    letters = byte_letters()
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=len(letters) + count, initial_alphabet=letters, show_progress=False
    )
    library.train_from_iterator(texts, trainer)
    values = {letter: value for value, letter in enumerate(letters)}
    ranked = sorted(library.get_vocab().items(), key=lambda pair: pair[1])
    return [bytes(values[letter] for letter in token) for token, _ in ranked if len(token) > 1]
