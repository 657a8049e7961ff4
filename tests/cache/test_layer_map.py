"""Who stays, who is worst, where each is: of one layer, by its policy's word."""

import numpy as np
import pytest

from hybrid.cache.counters import FILE, RAM, VRAM
from hybrid.cache.layer_map import LayerMap
from hybrid.cache.policy import POLICIES
from hybrid.cache.reader import Read
from hybrid.cache.workers import Task

ALL = np.ones(6, np.bool_)


@pytest.fixture
def own():
    """0 on the device, 1 … 4 in RAM, 5 in the file; 4 was picked last, 1 first."""
    made = LayerMap(1, 6, POLICIES["lru"])
    made.ram_slots, made.vram_slots = 3, 1
    made.vram[0] = 7
    made.ram[1:5] = [3, 9, 4, 1]
    for expert in (1, 2, 3, 4):
        made.observe(np.array([[expert]], np.int32))
    return made


def ids(*experts):
    return np.array(experts, np.int32)


def test_it_says_where_each_expert_is(own):
    assert own.tiers().tolist() == [VRAM, RAM, RAM, RAM, RAM, FILE]
    assert own.tiers_of(ids(5, 0)).tolist() == [FILE, VRAM]


def test_the_best_stay_and_the_device_needs_no_ram(own):
    assert np.flatnonzero(own.stays(ids())).tolist() == [2, 3, 4]
    assert np.flatnonzero(own.stays(ids(0))).tolist() == [2, 3, 4]


def test_a_newcomer_competes_as_if_it_were_there(own):
    own.observe(ids(5)[None])
    assert np.flatnonzero(own.stays(ids(5))).tolist() == [3, 4, 5]


def test_who_is_being_copied_stays_and_is_never_the_worst(own):
    own.pinned = {1, 2}
    assert np.flatnonzero(own.stays(ids())).tolist() == [1, 2, 3, 4]
    assert own.worst(ALL) == 3
    own.pinned = {1, 2, 3, 4}
    assert own.worst(ALL) is None


def test_the_worst_is_in_ram_and_allowed(own):
    assert own.worst(ALL) == 1
    assert own.worst(np.arange(6) > 2) == 3
    assert own.worst(np.arange(6) > 4) is None


def test_mending_believes_the_device_and_forgets_what_was_under_way(own):
    own.ram[0] = 2  # half of a swap
    own.pinned = {0, 3}
    own.reading[5] = Read(1, 5, 8, False, Task(lambda: None))
    ram, vram = own.ram, own.vram
    own.mend()
    assert own.ram is ram  # compiled code knows the address
    assert own.vram is vram
    assert own.ram.tolist() == [-1, 3, 9, 4, 1, -1]
    assert own.vram[0] == 7
    assert not own.pinned
    assert not own.reading


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_saved_can_begin_another_policys_run(policy):
    learnt = LayerMap(1, 6, POLICIES[policy])
    learnt.ram_slots = 3
    for _ in range(5):
        learnt.observe(ids(2, 4)[None])
    worth = learnt.worth()
    for name, other in POLICIES.items():
        begun = LayerMap(1, 6, other)
        begun.ram_slots = 2
        begun.seed(worth)
        begun.ram[:] = np.arange(6)
        assert np.flatnonzero(begun.stays(ids())).tolist() == [2, 4], name


def test_running_means_forget(own):
    for _ in range(200):
        own.missed(4)
        own.foresaw(right=False)
    assert own.misses == pytest.approx(4)
    assert own.foresight == pytest.approx(0, abs=1e-6)
