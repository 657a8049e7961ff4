"""How embeddings begin."""

import pytest
import torch

from hybrid.chat.vocabulary import Vocabulary
from hybrid.tiny.bpe import special_names
from nano.model.embedding import embedding

WORDS = (b"358", b"357", b"258", b"42", b" city", b"city", b"tree")
NUMBERED = (*(bytes([b]) for b in range(256)), *(b"%02d" % n for n in range(100)))
INITIALS = tuple(b"%cord%c" % (c, c) for c in b"abcdefghijklmnopqrstuvwxyz")
LETTERED = (*(bytes([b]) for b in range(256)), *INITIALS)
BASE = (*(bytes([b]) for b in range(256)), *WORDS)


def test_tokens_begin_as_neighbours_of_what_they_share():
    """A digit at a place, and a word in any form, lie in one direction of the embedding."""
    vocabulary = Vocabulary(BASE, special_names(len(BASE)))
    rows = embedding(vocabulary, 512, torch.Generator().manual_seed(0))
    rows = rows - rows.mean(0)  # of the direction that all share

    def alike(one, other):
        return torch.cosine_similarity(rows[BASE.index(one)], rows[BASE.index(other)], dim=0).item()

    near = [(b"358", b"357"), (b"358", b"258"), (b" city", b"city"), (b"8", b"358"), (b"A", b"a")]
    far = [(b"358", b"42"), (b"city", b"tree"), (b"!", b"?"), (b" city", b"358")]
    assert min(alike(*pair) for pair in near) > 0.25
    assert max(alike(*pair) for pair in far) < 0.15
    assert rows.std().item() == pytest.approx(0.5, rel=0.05)


def test_numbers_and_words_begin_in_their_order():
    """What they are sorted by is one direction each."""
    vocabulary = Vocabulary(NUMBERED, special_names(len(NUMBERED)))
    rows = embedding(vocabulary, 512, torch.Generator().manual_seed(0))
    numbers = torch.stack([rows[NUMBERED.index(b"%02d" % n)] for n in range(100)])
    along = numbers @ (numbers[50:].mean(0) - numbers[:50].mean(0))
    assert _correlation(along) > 0.95
    rows = embedding(Vocabulary(LETTERED, special_names(len(LETTERED))), 512, torch.Generator())
    words = torch.stack([rows[LETTERED.index(word)] for word in INITIALS])
    assert _correlation(words @ (words[13:].mean(0) - words[:13].mean(0))) > 0.95


def _correlation(along):
    """With the order in which they stand."""
    return torch.corrcoef(torch.stack((along, torch.arange(float(len(along))))))[0, 1]
