"""Tiles cover every pair that wants a slot exactly once, and are made without asking the device."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from hybrid.gpu_experts.grouping import tiles


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(1, 20),
    size=st.sampled_from([1, 2, 16]),
    ids=st.lists(st.integers(-1, 19), min_size=1, max_size=80),
)
def test_every_pair_is_in_one_tile_of_its_slot(slots, size, ids):
    wanted = torch.tensor([min(slot, slots - 1) for slot in ids], dtype=torch.int32)
    made = tiles(wanted[:, None], slots, size)
    found, count = [], int(made.count)
    assert count <= made.most
    for tile in range(count):
        first, length = int(made.first[tile]), int(made.size[tile])
        assert 0 < length <= size
        pairs = made.order[first : first + length].tolist()
        assert {int(wanted[pair]) for pair in pairs} == {int(made.slot[tile])}
        assert pairs == sorted(pairs)
        found += pairs
    assert sorted(found) == torch.nonzero(wanted >= 0).flatten().tolist()


def test_nothing_waits_for_the_device():
    with FakeTensorMode():
        made = tiles(torch.empty(7, 8, dtype=torch.int32, device="cuda"), 30, 16)
        assert made.most == 56 // 16 + 30
        assert {t.device.type for t in (made.order, made.slot, made.first, made.size)} == {"cuda"}
