"""Swaps step by step, with a device that copies when the test says so."""

import numpy as np
import pytest

from hybrid.cache.layer_map import LayerMap
from hybrid.cache.policy import DEFAULT, Swap
from hybrid.cache.promotions import Promotions
from tests.cache.parts import Tape, content, record_of, slots

EXPERTS = 6


class Scene:
    """One layer: experts 0 … 2 on the device, 3 … 5 in RAM, and some free slots."""

    def __init__(self, *, spare, can_forget=False, keep_free=0, free_device=0):
        self.slots = slots(3 + spare)
        self.tape = Tape(3 + free_device)
        self.own = LayerMap(1, EXPERTS, DEFAULT)
        self.promotions = Promotions(self.tape, self.slots, can_forget, keep_free)
        for expert in range(EXPERTS):
            if expert < 3:
                slot = self.own.vram[expert] = self.promotions.take()
                self.tape.records[slot] = record_of(1, expert)
            else:
                slot = self.own.ram[expert] = self.slots.take()
                self.slots.fill(slot, record_of(1, expert))
        self.tape.gate.clear()

    def where(self):
        return ["vram" if v >= 0 else "ram" if r >= 0 else "-" for v, r in self.pairs()]

    def pairs(self):
        return zip(self.own.vram.tolist(), self.own.ram.tolist(), strict=True)

    def check_bytes(self):
        """What a map says is there is there."""
        for expert, (device, host) in enumerate(self.pairs()):
            if device >= 0:
                np.testing.assert_array_equal(self.tape.records[device], record_of(1, expert))
            if host >= 0:
                np.testing.assert_array_equal(content(self.slots, host), record_of(1, expert))

    def copied(self):
        """Let every copy end that has been ordered, and stop the next."""
        self.tape.gate.set()
        for move in self.promotions._moves:
            self.promotions._copier.wait([move.copied])
        self.tape.gate.clear()

    def visit(self):
        self.promotions.publish()
        self.check_bytes()


@pytest.fixture
def scene(request):
    made = Scene(**request.param)
    yield made
    made.tape.gate.set()
    made.promotions.close()


def scenes(**options):
    return pytest.mark.parametrize("scene", [options], indirect=True, ids=str)


BEFORE = ["vram"] * 3 + ["ram"] * 3
AFTER = ["vram", "ram", "vram", "ram", "vram", "ram"]


@scenes(spare=1)
def test_a_swap_is_seen_when_its_bytes_are_there_and_not_before(scene):
    scene.promotions.begin(scene.own, Swap(4, 1))
    scene.visit()
    assert scene.where() == BEFORE
    assert scene.own.pinned == {1, 4}
    assert scene.slots.free == 0
    assert scene.promotions.resident(scene.own).tolist() == [True, False, True, False, True, False]
    scene.copied()
    assert scene.where() == BEFORE  # a map changes when its layer is visited
    scene.visit()
    assert scene.where() == ["vram", "ram", "vram", "ram", "ram", "ram"]
    assert scene.own.pinned == {4}
    scene.visit()
    scene.copied()
    scene.visit()
    assert scene.where() == AFTER
    assert not scene.own.pinned
    assert scene.slots.free == 1
    assert not scene.promotions._moves
    assert (scene.promotions.promoted, scene.promotions.demoted) == (1, 1)
    assert scene.promotions.copied_bytes == 2 * scene.slots.shape.nbytes


@scenes(spare=1)
def test_publishing_early_would_be_seen(scene):
    """The planted fault: the copy is believed to have ended."""
    scene.promotions.begin(scene.own, Swap(4, 1))
    scene.promotions._moves[0].copied.ended = True
    with pytest.raises(AssertionError):
        scene.visit()


@scenes(spare=3)
def test_whoever_is_on_the_move_takes_part_in_no_other_swap(scene):
    scene.promotions.begin(scene.own, Swap(4, 1))
    for swap in (Swap(4, 2), Swap(5, 1), Swap(3, 4), Swap(1, 0)):
        scene.promotions.begin(scene.own, swap)
    assert len(scene.promotions._moves) == 1
    scene.promotions.begin(scene.own, Swap(5, 2))
    assert len(scene.promotions._moves) == 2


@scenes(spare=0)
def test_without_a_spare_slot_and_a_file_nothing_happens(scene):
    scene.promotions.begin(scene.own, Swap(4, 1))
    assert not scene.promotions._moves
    assert scene.where() == BEFORE


@pytest.mark.parametrize(
    "scene",
    [{"spare": 0, "can_forget": True}, {"spare": 2, "can_forget": True, "keep_free": 2}],
    indirect=True,
    ids=str,
)
def test_without_a_spare_slot_but_with_a_file_the_leaver_is_forgotten(scene):
    free = scene.slots.free
    scene.promotions.begin(scene.own, Swap(4, 1))
    scene.visit()
    assert scene.where() == ["vram", "-", "vram", "ram", "ram", "ram"]
    scene.copied()
    scene.visit()
    assert scene.where() == ["vram", "-", "vram", "ram", "vram", "ram"]
    assert scene.slots.free == free + 1
    assert (scene.promotions.promoted, scene.promotions.demoted) == (1, 1)


@scenes(spare=0, free_device=1)
def test_into_a_free_slot_nobody_leaves(scene):
    scene.promotions.begin(scene.own, Swap(5, None))
    scene.promotions.begin(scene.own, Swap(3, None))  # there is no other
    scene.copied()
    scene.visit()
    assert scene.where() == ["vram", "vram", "vram", "ram", "ram", "vram"]


@scenes(spare=1, free_device=1)
def test_who_is_not_in_ram_cannot_come(scene):
    scene.own.ram[4] = -1
    scene.promotions.begin(scene.own, Swap(4, 1))
    scene.promotions.begin(scene.own, Swap(4, None))
    assert not scene.promotions._moves
    assert scene.slots.free == 1


@scenes(spare=2)
def test_draining_ends_all(scene):
    scene.promotions.begin(scene.own, Swap(4, 1))
    scene.promotions.begin(scene.own, Swap(5, 0))
    scene.tape.gate.set()
    scene.promotions.drain()
    scene.check_bytes()
    assert scene.where() == ["ram", "ram", "vram", "ram", "vram", "vram"]
    assert not scene.own.pinned
    assert scene.slots.free == 2


@scenes(spare=1)
def test_a_copy_that_fails_is_an_error_and_changes_nothing(scene):
    scene.tape.error = OSError("the device is gone")
    scene.promotions.begin(scene.own, Swap(4, 1))
    scene.copied()
    with pytest.raises(OSError, match="gone"):
        scene.promotions.publish()
    scene.check_bytes()
    assert scene.where() == BEFORE


@pytest.mark.parametrize("phase", range(3))
@scenes(spare=1, can_forget=True)
def test_swaps_that_are_given_up_leave_the_maps_true(scene, phase):
    """After an interrupt: whatever had been copied, no slot is lost or had twice."""
    scene.promotions.begin(scene.own, Swap(4, 1))
    for _ in range(phase):
        scene.copied()
        scene.visit()
    scene.tape.gate.set()
    scene.promotions.give_up()
    scene.own.mend()
    scene.slots.reclaim(scene.own.ram[scene.own.ram >= 0].tolist())
    scene.promotions.reclaim(scene.own.vram[scene.own.vram >= 0].tolist())
    scene.check_bytes()
    assert not scene.promotions._moves
    assert not scene.own.pinned
    in_ram, on_device = scene.where().count("ram"), scene.where().count("vram")
    assert in_ram + on_device == EXPERTS
    assert scene.slots.free == 4 - in_ram
    assert [scene.promotions.take() is None for _ in range(4 - on_device)][-1]
