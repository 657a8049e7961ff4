"""What crosses the link: one copy for a layer's arrays, one wait, and none of it read too early."""

import numpy as np
import pytest
import torch

from hybrid.accelerator.host import HostAccelerator
from hybrid.errors import KernelError
from hybrid.gpu_attention import forward as forward_module
from hybrid.gpu_attention import hand_off
from hybrid.gpu_attention.hand_off import ALIGNMENT, Mirror
from tests.reference.recorded_graph import capture
from tests.reference.torch_models import cheap_model, logits

torch.set_num_threads(1)
LINK_GB_S = 1e-3  # 1 MB/s: 0.3 ms for a tiny layer's arrays, which a host that waits not overtakes


class Queued(HostAccelerator):
    """A thread does the work of the caller's own queue: as on a GPU, later than it is launched."""

    def __init__(self):
        super().__init__(link_gb_s=LINK_GB_S)
        self._own = self.stream("own", urgent=True)

    def current(self):
        return self._own

    def pinned(self, nbytes):
        return torch.zeros(nbytes, dtype=torch.uint8)


@pytest.fixture
def queued():
    accelerator = Queued()
    yield accelerator
    accelerator.close()


class Counting:
    """A stream that counts copies."""

    def __init__(self, stream):
        self._stream, self.copies = stream, 0

    def copy(self, target, source):
        self.copies += 1
        self._stream.copy(target, source)

    def record(self):
        return self._stream.record()


FIELDS = {
    "ids": (torch.int32, (3, 5)),
    "weights": (torch.float32, (3, 5)),
    "wide": (torch.float64, (7,)),
    "bits": (torch.bfloat16, (2, 1, 9)),
}


def test_all_arrays_cross_in_one_copy(queued):
    mirror, stream = Mirror.empty(queued, FIELDS), Counting(queued.current())
    random = np.random.default_rng(1)
    for name, array in mirror.host.items():
        array[...] = random.integers(0, 100, array.shape)
        assert list(array.shape) == list(mirror.device[name].shape)
        assert mirror.device[name].data_ptr() % 16 == 0
    kept = {name: array.copy() for name, array in mirror.host.items()}
    mirror.upload(stream)
    stream.record().wait()
    for array in mirror.host.values():
        array[...] = 0
    mirror.fetch(stream).wait()
    assert all(np.array_equal(mirror.host[name], kept[name]) for name in FIELDS)
    assert stream.copies == 2
    assert mirror.memory[0].nbytes == len(FIELDS) * ALIGNMENT


def test_a_type_that_numpy_lacks_is_its_bits(queued):
    mirror = Mirror.empty(queued, {"x": (torch.bfloat16, (2,))})
    mirror.host["x"][:] = [0x3F80, 0xC000]
    mirror.upload(queued.current())
    queued.current().record().wait()
    assert mirror.device["x"].tolist() == [1.0, -2.0]


def run(model, steps=5):
    blocks = [([3, 1, 4, 1, 5, 9, 2], 0), *(([at + 20], 7 + at) for at in range(steps))]
    return np.concatenate([logits(model, ids, at) for ids, at in blocks])


@pytest.mark.parametrize("guesses", [False, True])
def test_a_device_that_is_late_says_the_same(guesses, tiny_dir, queued):
    want = run(cheap_model(tiny_dir))
    model = cheap_model(tiny_dir, capture, queued, guesses=guesses)
    assert np.array_equal(run(model), want)
    assert model.backbone.stats()["replayed"] > 0


def test_a_host_that_does_not_wait_is_seen(tiny_dir, queued, monkeypatch):
    want = run(cheap_model(tiny_dir))
    model = cheap_model(tiny_dir, capture, queued)
    monkeypatch.setattr(hand_off.Waits, "wait", lambda self, event: None)
    assert not np.array_equal(run(model), want)


def test_a_sum_that_is_on_the_device_already(tiny_dir):
    """Experts that sum there hand over a tensor; an array may be written to after `combine`."""
    model, plain = cheap_model(tiny_dir, capture), cheap_model(tiny_dir)
    combine = model.backbone.combine

    def from_tensor(x, shared, routed):
        there = torch.from_numpy(routed)
        x = combine(x, shared, there)
        there.zero_()
        return x

    model.backbone.combine = from_tensor
    assert np.array_equal(run(model), run(plain))


def test_an_error_of_the_device_is_raised_where_the_host_waits(tiny_dir, queued, monkeypatch):
    def fail(self, step, layer, decision):
        raise KernelError("no kernel")

    model = cheap_model(tiny_dir, None, queued)
    monkeypatch.setattr(forward_module.Forward, "shared", fail)
    with pytest.raises(KernelError, match="no kernel"):
        run(model)
    monkeypatch.undo()
    queued.current().settle()
    assert np.array_equal(run(model), run(cheap_model(tiny_dir)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.embed([]), "a block is 0 tokens; give 1…512"),
        (lambda b: b.embed([0] * 513), "a block is 513 tokens"),
        (lambda b: b.embed([-1]), "token ids must be 0…1023"),
        (lambda b: b.embed([1024]), "token ids must be 0…1023"),
        (lambda b: b.attend(0, b.embed([1, 2]), 511), "positions 511…512 do not fit the cache"),
        (lambda b: b.attend(0, b.embed([1]), -1), "do not fit the cache of 512"),
        (lambda b: b.attend(1, b.attend(0, b.embed([1]), 3), 4), "began at position 3, not 4"),
        (lambda b: b.insert(b.embed([1]), 1, np.zeros((1, 64), np.float32)), "do not fit"),
        (lambda b: b.insert(b.embed([1]), 0, np.zeros((1, 63), np.float32)), "do not fit"),
        (
            lambda b: b.insert(b.attend(0, b.embed([1]), 0), 0, np.zeros((1, 64), np.float32)),
            "after the first layer",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message, tiny_dir):
    with pytest.raises(KernelError, match=message):
        call(cheap_model(tiny_dir).backbone)
