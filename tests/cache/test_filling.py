"""The first records: best first, each where its map says, with progress, and out cleanly."""

import threading

import numpy as np
import pytest

from hybrid.cache.filling import Filling
from hybrid.cache.layer_map import LayerMap
from hybrid.cache.policy import DEFAULT
from hybrid.cache.promotions import Promotions
from hybrid.errors import CheckpointError
from hybrid.progress import ignore
from tests.cache.parts import Source, Tape, content, record_of, slots

EXPERTS = 8


class Scene:
    """Two layers with some slots each; `worth` makes the last experts the best."""

    def __init__(self, vram, ram, working, *, seeded=False):
        self.source = Source()
        self.slots, self.tape = slots(2 * ram + working), Tape(2 * vram)
        self.promotions = Promotions(self.tape, self.slots, can_forget=True, keep_free=0)
        self.maps = [LayerMap(layer, EXPERTS, DEFAULT) for layer in (1, 4)]
        for own in self.maps:
            own.vram_slots, own.ram_slots = vram, ram
            if seeded:
                own.seed(np.arange(EXPERTS, dtype=np.float64))
        self.seen = []

    def sink(self, progress):
        self.seen.append((progress.done, progress.total))

    def fill(self, threads=3, sink=None):
        filling = Filling(self.source, self.slots, self.tape, self.promotions, sink or self.sink)
        filling.fill(self.maps, threads)

    def check(self):
        for own in self.maps:
            for expert in range(EXPERTS):
                want, device, host = record_of(own.layer, expert), own.vram[expert], own.ram[expert]
                assert device < 0 or host < 0
                if device >= 0:
                    np.testing.assert_array_equal(self.tape.records[device], want)
                if host >= 0:
                    np.testing.assert_array_equal(content(self.slots, host), want)

    def close(self):
        self.promotions.close()


@pytest.fixture
def scene(request):
    made = Scene(**request.param)
    yield made
    made.close()


def scenes(*options):
    return pytest.mark.parametrize("scene", options, indirect=True, ids=str)


def filling_threads():
    return [each for each in threading.enumerate() if each.name.startswith("filling")]


@scenes(
    {"vram": 3, "ram": 4, "working": 4},
    {"vram": 8, "ram": 0, "working": 1},
    {"vram": 0, "ram": 8, "working": 0},
    {"vram": 2, "ram": 6, "working": 2},
)
def test_every_record_is_where_its_map_says(scene):
    scene.fill()
    scene.check()
    for own in scene.maps:
        assert np.count_nonzero(own.vram >= 0) == own.vram_slots
        assert np.count_nonzero(own.ram >= 0) == own.ram_slots
    assert scene.slots.free == scene.slots.count - sum(own.ram_slots for own in scene.maps)
    assert not filling_threads()


@scenes({"vram": 2, "ram": 3, "working": 4})
def test_of_equals_the_first_begin_in_memory(scene):
    scene.fill()
    for own in scene.maps:
        assert np.flatnonzero(own.vram >= 0).tolist() == [0, 1]
        assert np.flatnonzero(own.ram >= 0).tolist() == [2, 3, 4]


@scenes({"vram": 2, "ram": 3, "working": 4, "seeded": True})
def test_the_best_of_an_earlier_run_begin_on_the_device(scene):
    scene.fill()
    for own in scene.maps:
        assert np.flatnonzero(own.vram >= 0).tolist() == [6, 7]
        assert np.flatnonzero(own.ram >= 0).tolist() == [3, 4, 5]


@scenes({"vram": 2, "ram": 3, "working": 4})
def test_progress_is_told_from_nothing_to_all(scene):
    scene.fill()
    total = 10 * scene.slots.shape.nbytes
    done = [done for done, _ in scene.seen]
    assert {total for _, total in scene.seen} == {total}
    assert done == sorted(done)
    assert (done[0], done[-1], len(done)) == (0, total, 11)


@scenes({"vram": 0, "ram": 0, "working": 4})
def test_nothing_to_fill_is_well(scene):
    scene.fill()
    assert scene.seen == [(0, 0)]


@scenes({"vram": 2, "ram": 3, "working": 4})
@pytest.mark.parametrize("error", [CheckpointError("torn"), SystemExit(3)])
def test_a_record_that_cannot_be_read_ends_it(scene, error):
    scene.source.errors[3] = error
    with pytest.raises(type(error)):
        scene.fill(sink=ignore)
    assert not filling_threads()


@scenes({"vram": 2, "ram": 3, "working": 4})
@pytest.mark.parametrize("after", [0, 1, 5, 9])
def test_an_interrupt_leaves_no_thread(scene, after):
    def sink(progress):
        if progress.done >= after * scene.slots.shape.nbytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.fill(sink=sink)
    assert not filling_threads()


@scenes({"vram": 2, "ram": 3, "working": 4})
def test_bytes_that_never_came_would_be_seen(scene, monkeypatch):
    """The planted fault: a record is marked as read that was not."""
    monkeypatch.setattr(Filling, "_pull", lambda *_: None)
    scene.fill()
    with pytest.raises(AssertionError):
        scene.check()
