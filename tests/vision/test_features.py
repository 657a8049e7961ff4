"""What is remembered of the pictures seen, what that costs, and what an interruption leaves."""

import numpy as np
import pytest

from hybrid.progress import Progress
from hybrid.vision import features
from hybrid.vision.features import CACHE_BYTES, PASS_PATCHES, Features
from hybrid.vision.media import Item
from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.prompt import expanded

PAD, HIDDEN = 90, 3
ROW_BYTES = 4 * HIDDEN


class Stop(Exception):  # noqa: N818
    """Raised by a poll to abandon a pass."""


class RecordingTower:
    """Rows that say which item they are of: its first pixel, its rows counted, a constant."""

    def __init__(self):
        self.passes = []  # of items
        self.fails_at = None

    def features(self, items, poll=lambda: None):
        poll()
        if len(self.passes) == self.fails_at:
            raise Stop
        self.passes.append(list(items))
        return [rows_of(item) for item in items]

    @property
    def items_seen(self):
        return sum(map(len, self.passes))


def rows_of(item):
    at = np.arange(item.tokens, dtype=np.float32)
    return np.stack([np.full_like(at, item.patches[0, 0]), at, np.ones_like(at)], axis=1)


def item(level, h=2, w=2):
    return Item(np.full((h * w, 12), level, np.uint8), (1, h, w))


def placed(*items):
    return expanded([PAD] * len(items), PAD, items).media


@pytest.fixture
def tower():
    return RecordingTower()


def remembering(tower, rows=10**6):
    return Features(tower, PUBLISHED, rows * ROW_BYTES)


def same(got, items):
    return len(got) == len(items) and all(
        np.array_equal(rows, rows_of(item)) for rows, item in zip(got, items, strict=True)
    )


def test_rows_come_in_order_and_are_kept(tower):
    items = [item(5, 4, 2), item(3), item(9, 2, 6)]
    seeing = remembering(tower)
    assert same(seeing.of(placed(*items)), items)
    assert same(seeing.of(placed(*reversed(items))), list(reversed(items)))
    assert tower.passes == [items]
    assert (seeing.seen.items, seeing.seen.patches) == (6, 8 + 4 + 12)
    assert seeing.seen.seconds > 0


def test_only_what_is_new_is_looked_at(tower):
    seeing = remembering(tower)
    seeing.of(placed(item(1), item(2)))
    items = [item(2), item(3), item(1), item(4)]
    assert same(seeing.of(placed(*items)), items)
    assert tower.passes[1:] == [[items[1], items[3]]]


def test_a_picture_that_comes_twice_in_a_request_is_looked_at_once(tower):
    items = [item(7), item(8), item(7), item(7)]
    assert same(remembering(tower, rows=0).of(placed(*items)), items)
    assert [[shown.patches[0, 0] for shown in together] for together in tower.passes] == [[7, 8]]


def test_content_decides_and_nothing_else(tower):
    seeing = remembering(tower)
    seeing.of(placed(item(7, 2, 4)))
    copied = Item(item(7, 2, 4).patches.copy(), (1, 2, 4))
    assert same(seeing.of(placed(copied)), [copied])
    assert tower.items_seen == 1
    seeing.of(placed(item(7, 4, 2)))  # the same bytes, turned
    seeing.of(placed(item(8, 2, 4)))  # the same size
    assert tower.items_seen == 3


def test_a_cache_by_size_would_be_seen(tower, monkeypatch):
    monkeypatch.setattr(Item, "digest", property(lambda self: repr(self.grid).encode()))
    seeing = remembering(tower)
    seeing.of(placed(item(7)))
    assert not same(seeing.of(placed(item(8))), [item(8)])


def test_nothing_to_see_costs_nothing(tower):
    seen = []
    assert remembering(tower).of([], sink=seen.append) == []
    assert (tower.passes, seen) == ([], [])


def test_the_one_used_longest_ago_is_forgotten(tower):
    a, b, c = item(1), item(2), item(3)  # a row each
    seeing = remembering(tower, rows=2)
    for shown in (a, b, a, c):  # forgets b
        seeing.of(placed(shown))
    assert tower.passes == [[a], [b], [c]]
    seeing.of(placed(a))
    assert tower.items_seen == 3
    seeing.of(placed(b))
    assert tower.items_seen == 4


def test_the_first_in_first_out_would_be_seen(tower, monkeypatch):
    monkeypatch.setattr(Features, "_recall", lambda self, digest: self._kept.get(digest))
    seeing = remembering(tower, rows=2)
    for shown in (1, 2, 1, 3, 1):
        seeing.of(placed(item(shown)))
    assert tower.items_seen == 4  # the first was forgotten although it was just used


def test_bytes_are_counted_not_pictures(tower):
    seeing = remembering(tower, rows=6)
    large, small = item(1, 4, 4), [item(2), item(3), item(4)]  # 4 rows; 1 each
    seeing.of(placed(large, *small[:2]))
    seeing.of(placed(large, *small[:2]))
    assert tower.items_seen == 3  # 6 rows fit exactly
    seeing.of(placed(small[2]))  # forgets the large one
    seeing.of(placed(*small))
    assert tower.items_seen == 4
    seeing.of(placed(large))
    assert tower.items_seen == 5
    assert seeing._bytes == sum(rows.nbytes for rows in seeing._kept.values()) <= 6 * ROW_BYTES


def test_what_is_larger_than_the_cache_displaces_nothing(tower):
    seeing = remembering(tower, rows=3)
    seeing.of(placed(item(1)))
    huge = item(2, 4, 4)
    for _ in range(2):
        assert same(seeing.of(placed(huge)), [huge])
    assert tower.items_seen == 3
    seeing.of(placed(item(1)))
    assert tower.items_seen == 3


def test_one_request_may_hold_more_than_the_cache(tower):
    items = [item(level) for level in range(9)]
    assert same(remembering(tower, rows=2).of(placed(*items)), items)


PASSES = {  # patches of each item -> items of each pass, at a limit of 40
    (): [],
    (4,): [1],
    (20, 20): [2],
    (20, 20, 4): [2, 1],
    (36, 4, 4): [2, 1],
    (44,): [1],
    (4, 44, 4): [1, 1, 1],
    (400, 400): [1, 1],
    (4,) * 21: [10, 10, 1],
}


@pytest.mark.parametrize("patches", PASSES)
def test_passes_hold_at_most_their_patches_or_one_item(tower, monkeypatch, patches):
    monkeypatch.setattr(features, "PASS_PATCHES", 40)
    items = [item(level, 2, count // 2) for level, count in enumerate(patches)]
    assert same(remembering(tower).of(placed(*items)), items)
    assert [len(together) for together in tower.passes] == PASSES[patches]
    assert [shown for together in tower.passes for shown in together] == items


def test_published_limits():
    assert PUBLISHED.in_patch_limit == PASS_PATCHES  # one image of the largest kind
    assert CACHE_BYTES >= 2 * 4464 * 7168 * 4  # two of the longest images (spec §6.1)


def test_progress_counts_patches_of_what_is_new(tower, monkeypatch):
    monkeypatch.setattr(features, "PASS_PATCHES", 10)
    seeing, seen = remembering(tower), []
    seeing.of(placed(item(0)))
    seeing.of(placed(item(0), item(1), item(2), item(3, 2, 4), item(1)), sink=seen.append)
    assert [(p.done, p.total) for p in seen] == [(0, 16), (8, 16), (8, 16), (16, 16)]
    assert {(p.phase, p.unit) for p in seen} == {("vision", "patches")}
    assert isinstance(seen[0], Progress)


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_an_abandoned_request_keeps_what_its_passes_made(tower, monkeypatch, finished):
    monkeypatch.setattr(features, "PASS_PATCHES", 4)
    items = [item(level) for level in range(3)]
    polls = iter(range(10))
    seeing = remembering(tower)

    def poll():
        if next(polls) == finished:
            raise Stop

    with pytest.raises(Stop):
        seeing.of(placed(*items), poll)
    assert (seeing.seen.items, seeing.seen.patches) == (3, 4 * finished)
    assert same(seeing.of(placed(*items)), items)
    assert [together[0] for together in tower.passes] == items  # each once in all
    assert seeing.seen.patches == 12


def test_a_tower_that_fails_leaves_nothing_half_done(tower):
    tower.fails_at = 0
    seeing = remembering(tower)
    with pytest.raises(Stop):
        seeing.of(placed(item(1)))
    assert (seeing.seen.items, seeing.seen.patches, len(seeing._kept)) == (1, 0, 0)
    tower.fails_at = None
    assert same(seeing.of(placed(item(1))), [item(1)])


def test_rows_that_are_missing_would_be_noticed(tower, monkeypatch):
    monkeypatch.setattr(tower, "features", lambda items, poll: [])
    with pytest.raises(ValueError, match="shorter"):
        remembering(tower).of(placed(item(1)))
