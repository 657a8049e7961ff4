"""The paged cache: rows come back by position, wherever their pages are."""

import pytest
import torch

from hybrid.config import ModelConfig
from hybrid.gpu_attention import ops
from hybrid.gpu_attention.kv_cache import PAGE, LatentCache


@pytest.fixture
def text(tiny_dir):
    return ModelConfig.from_dir(tiny_dir).text


def shuffled(cache: LatentCache) -> LatentCache:
    order = torch.randperm(len(cache.table), generator=torch.Generator().manual_seed(5)).int()
    assert not torch.equal(order, cache.table)
    return LatentCache(cache.pages.clone(), order, in_order=False)


def filled(cache: LatentCache, rows: torch.Tensor, layer: int) -> LatentCache:
    for first in range(0, len(rows), 50):
        positions = torch.arange(first, min(first + 50, len(rows)), dtype=torch.int32)
        cache.write(layer, cache.slots(positions), rows[first : first + 50])
    return cache


def test_rows_come_back_by_position_and_layer(text):
    empty = LatentCache.empty(text, 500, torch.device("cpu"), torch.float32)
    assert empty.pages.shape[1:3] == (8, PAGE)
    width = empty.pages.shape[-1]
    rows = torch.randn(500, width)
    for cache in (empty, shuffled(empty)):
        filled(cache, rows, 1)
        filled(cache, -rows, 2)
        for end in (1, PAGE, PAGE + 1, 499, 500):
            assert torch.equal(cache.upto(1, end), rows[:end])
            assert torch.equal(cache.upto(2, end), -rows[:end])


def test_rows_in_order_are_a_view(text):
    cache = LatentCache.empty(text, 500, torch.device("cpu"), torch.float32)
    assert cache.upto(2, 100).data_ptr() == cache.of(2).data_ptr()


def test_attention_finds_shuffled_pages(text):
    empty = LatentCache.empty(text, 500, torch.device("cpu"), torch.float32)
    width, rank = empty.pages.shape[-1], text.kv_lora_rank
    rows, query = torch.randn(300, width), torch.randn(3, 4, width)
    start = torch.tensor([297], dtype=torch.int32)

    def mixed(cache, table=None):
        pages = filled(cache, rows, 0).of(0)
        table = cache.table if table is None else table
        return ops.mla_decode(query, pages, table, start, 0.3, rank)

    moved = shuffled(empty)
    assert torch.equal(mixed(moved), mixed(empty))
    assert not torch.allclose(mixed(moved, empty.table), mixed(empty))
