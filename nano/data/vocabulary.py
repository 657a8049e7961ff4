"""The vocabulary: 256 bytes, all numbers to 999, then what our own conversations support best.

Learnt by `tokenizers` over the pieces that Kimi's pattern cuts, so no token crosses a cut: the
pattern cuts numbers into three digits, and each such piece is one token, as in Kimi's own.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

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
from nano.data.numbers import PLACES
from nano.data.render import flat_text
from nano.data.sample import Sample
from nano.data.shelf import BY_NAME, SHELF

SAMPLES = 300  # conversations of each family
EMPHASIS = 100  # each word of ours becomes one token, in every form in which it is read or said
NUMBERS = (*(f"{n:02d}" for n in range(100)), *(str(n) for n in range(100, 1000)))
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
    texts += [*_words()] * EMPHASIS
    # single bytes in the published order, then every merge in the order of learning
    first = (*build_vocabulary(256), *(number.encode() for number in NUMBERS))
    merged = _merges(texts, base_size - len(first))
    if len(first) + len(merged) != base_size:
        found = len(first) + len(merged)
        raise ConfigError(f"the conversations support {found} tokens, not {base_size}")
    return Vocabulary((*first, *merged), special_names(base_size))


def _words() -> Iterator[str]:
    """What should be one token: words, and what declarations and calls are made of."""
    plain = [*words.ALL, *PLACES]
    for tool in SHELF:
        plain += [word for parameter in tool.parameters for word in parameter.options]
        for name in (tool.name, *(parameter.name for parameter in tool.parameters)):
            first, *rest = name.split("_")
            yield from (f".{first}", f" {first}", first)
            yield from (f"_{part}" for part in rest)
    yield from (f"{mark}{word}" for word in plain for mark in ("", " "))


def _said(template: ChatTemplate, sample: Sample) -> list[str]:
    """The ordinary text of a conversation, between its control tokens; its tools in full."""
    whole = tuple(BY_NAME[tool["function"]["name"]].schema for tool in sample.tools)
    return _CONTROL.split(flat_text(template, replace(sample, tools=whole)))


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
