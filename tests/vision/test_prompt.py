"""Expansion of placeholders, and what tells two prompts apart whose token ids are equal."""

import hashlib

import numpy as np
import pytest

from hybrid.errors import RequestError
from hybrid.vision import media
from hybrid.vision.media import Item, Media
from hybrid.vision.prompt import Prompt, expanded

PAD = 90


def item(h, w, seed=0, frames=1):
    random = np.random.default_rng(seed)
    patches = random.integers(0, 256, (frames * h * w, 12), dtype=np.uint8)
    return Item(patches, (frames, h, w))


def spelled_out(ids, items):
    """The same by one list a token: (id, item or None, row of the item)."""
    left, rows = list(items), []
    for token in ids:
        shown = left.pop(0) if token == PAD else None
        rows += [(token, shown, row) for row in range(shown.tokens if shown else 1)]
    assert not left
    return rows


CASES = {
    "text alone": ([1, 2, 3], []),
    "in the middle": ([1, PAD, 2], [item(4, 6)]),
    "at both ends": ([PAD, 7, PAD], [item(2, 2, 1), item(6, 4, 2)]),
    "side by side": ([PAD, PAD, PAD], [item(2, 4, 1), item(2, 2, 2), item(4, 4, 3)]),
    "one alone": ([PAD], [item(2, 2)]),
    "a video of two chunks": ([5, PAD, 6, PAD, 7], [item(4, 4, 1, 4), item(4, 4, 2, 2)]),
    "twice the same": ([PAD, PAD, 1, PAD], [item(2, 4), item(2, 4), item(2, 4)]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_row_is_what_a_list_of_rows_says(case):
    ids, items = CASES[case]
    prompt, rows = expanded(ids, PAD, items), spelled_out(ids, items)
    assert prompt.ids == [token for token, _, _ in rows]
    assert prompt.identity() == [shown.digest if shown else token for token, shown, _ in rows]
    starts = [at for at, (_, shown, row) in enumerate(rows) if shown and not row]
    assert [placed.start for placed in prompt.media] == starts
    assert [placed.item for placed in prompt.media] == items
    assert [placed.end - placed.start for placed in prompt.media] == [i.tokens for i in items]
    assert [placed.digest for placed in prompt.media] == [i.digest for i in items]


def test_media_from_a_row_on():
    prompt = expanded([1, PAD, 2, PAD, 3], PAD, [item(2, 4), item(2, 6)])  # rows 1-2 and 4-6
    first, second = prompt.media
    behind = {0: [first, second], 1: [first, second], 2: [first, second], 3: [second]}
    behind |= {4: [second], 6: [second], 7: [], 8: []}
    assert {row: prompt.media_from(row) for row in behind} == behind
    assert Prompt([1, 2]).media_from(0) == []


@pytest.mark.parametrize(
    ("ids", "items", "match"),
    [
        ([1, PAD], [], "has 1 media placeholders for 0 images"),
        ([PAD, PAD], [item(2, 2)], "has 2 media placeholders for 1 images"),
        ([1, 2], [item(2, 2)], "has 0 media placeholders for 1 images"),
        ([PAD], [item(2, 2), item(2, 2)], "has 1 media placeholders for 2 images"),
    ],
)
def test_another_number_of_items_is_refused(ids, items, match):
    with pytest.raises(RequestError, match=match) as refused:
        expanded(ids, PAD, items)
    assert refused.value.param == "images"


def test_a_model_without_a_placeholder_has_only_text():
    assert expanded([1, PAD, 2], None, []) == Prompt([1, PAD, 2])
    with pytest.raises(RequestError, match="has 0 media placeholders for 1 images"):
        expanded([1, PAD], None, [item(2, 2)])


def twins():
    """Pairs that a careless identity takes for one: same ids, and in each something else equal."""
    same = item(2, 4)
    other_pixel = Item(same.patches.copy(), same.grid)
    other_pixel.patches[-1, -1] ^= 1
    return {
        "same size": (same, other_pixel),
        "same bytes, turned": (same, Item(same.patches, (1, 4, 2))),
        "same bytes, in time": (item(2, 4, 0, 2), Item(item(2, 4, 0, 2).patches, (1, 4, 4))),
    }


def test_tokens_of_media_are_those_of_its_items():
    chunks = (item(4, 6, frames=4), item(4, 6, frames=1))
    assert [chunk.tokens for chunk in chunks] == [6, 6]  # frames are averaged (spec §3.6)
    assert Media("video", "clip", 84, 56, chunks, ("00:00:00.000", "00:00:02.000")).tokens == 12


@pytest.mark.parametrize("pair", twins())
def test_other_pictures_are_other_prompts(pair):
    first, second = (expanded([1, PAD, 2], PAD, [shown]) for shown in twins()[pair])
    assert first.identity()[1] != second.identity()[1]
    if pair != "same bytes, in time":  # which takes another number of tokens
        assert first.ids == second.ids


def test_the_digest_is_of_content_alone():
    first, copied = item(4, 4, 3), Item(item(4, 4, 3).patches.copy(), (1, 4, 4))
    strided = Item(np.asfortranarray(first.patches), (1, 4, 4))
    assert first.digest == copied.digest == strided.digest
    assert len(first.digest) == 32


FAULTS = {
    "without the grid": lambda self: hashlib.sha256(self.patches.tobytes()).digest(),
    "by size": lambda self: repr(self.grid).encode(),
    "by tokens": lambda self: bytes([self.tokens]),
    "of the first patch": lambda self: repr((self.grid, self.patches[0].tobytes())).encode(),
}


def test_an_item_is_hashed_once(monkeypatch):
    hashed, sha256 = [], hashlib.sha256

    def counting(data):
        hashed.append(len(data))
        return sha256(data)

    monkeypatch.setattr(media.hashlib, "sha256", counting)
    one = media.Item(np.zeros((4, 588), np.uint8), (1, 2, 2))
    assert one.digest == one.digest
    assert len(hashed) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_careless_digest_would_be_seen(fault, monkeypatch):
    monkeypatch.setattr(media.Item, "digest", property(FAULTS[fault]))
    alike = [pair for pair, (a, b) in twins().items() if a.digest == b.digest]
    assert alike


def test_identity_by_ids_alone_would_be_seen(monkeypatch):
    monkeypatch.setattr(Prompt, "identity", lambda self: list(self.ids))
    first, second = (expanded([1, PAD], PAD, [shown]) for shown in twins()["same size"])
    assert first.identity() == second.identity()
    ids, items = CASES["in the middle"]
    assert expanded(ids, PAD, items).identity() != [
        shown.digest if shown else token for token, shown, _ in spelled_out(ids, items)
    ]
