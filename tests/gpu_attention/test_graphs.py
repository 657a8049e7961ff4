"""Graphs of a decode step: replayed at other positions and tokens they say what eager work says.

`recorded_graph` stands in for CUDA's: it bakes in whatever a CUDA graph would.
"""

import logging
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hybrid.accelerator.cuda import CudaAccelerator
from hybrid.errors import KernelError
from hybrid.gpu_attention import forward as forward_module
from hybrid.gpu_attention import graphs as graphs_module
from hybrid.gpu_attention.backbone import BUCKETS
from hybrid.gpu_attention.graphs import Graphs
from hybrid.model import Block
from tests.conftest import SHAPES
from tests.reference.recorded_graph import capture
from tests.reference.torch_models import cheap_model, logits

torch.set_num_threads(1)


def tokens(count, seed=0):
    return np.random.default_rng(seed).integers(0, 768, count).tolist()


def decoded(model, blocks):
    """Logits of blocks of these sizes, one after the other from position 0."""
    found, start = [], 0
    for at, count in enumerate(blocks):
        found.append(logits(model, tokens(count, at), start))
        start += count
    return np.concatenate(found)


# every bucket before, at and behind the first pages' ends (64 positions), and blocks that are none
WALK = [*[1] * 6, 60, 1, 1, 8, 2, 8, 2, 4, 3, 4, 2, 8, 1, 4, 50, 1, 8, 4, 2, 1]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [*[(shape, torch.float32) for shape in SHAPES], ("k2-thinking", torch.bfloat16)],
)
def test_replays_say_what_eager_work_says(shape, dtype, checkpoint_dir):
    model = cheap_model(checkpoint_dir(shape), capture, dtype=dtype)
    plain = cheap_model(checkpoint_dir(shape), dtype=dtype)
    assert np.array_equal(decoded(model, WALK), decoded(plain, WALK))
    assert model.backbone.stats()["replayed"] > 50
    assert plain.backbone.stats()["replayed"] == 0


def test_int8_weights_are_captured_alike(tiny_dir):
    model = cheap_model(tiny_dir, capture, weights="int8")
    assert np.array_equal(
        decoded(model, WALK), decoded(cheap_model(tiny_dir, weights="int8"), WALK)
    )
    assert not np.array_equal(decoded(model, WALK), decoded(cheap_model(tiny_dir), WALK))


def baked_begin(self, step):
    """The host's position where the device's belongs."""
    positions = torch.arange(
        int(step.up.host["start"][0]), int(step.up.host["start"][0]) + step.tokens
    )
    step.slots.copy_(self.cache.slots(positions.to(torch.int32)))


def baked_start(self, step, layer, place):
    start = torch.full_like(place.start, int(step.up.host["start"][0]))
    attend(self, step, layer, replace(place, start=start))


def baked_rotation(self, step, layer, place):
    attend(self, step, layer, replace(place, cos=torch.tensor(step.up.host["cos"].tolist())))


def baked_sum(self, step, *, shared):
    routed = torch.from_numpy(step.routed.host["routed"].copy())
    step.x.add_((routed + step.shared.float()).to(step.x.dtype))


def other_hidden(self, step, layer, decision):
    """A view of memory that is no longer used by the next replay."""
    copied = torch.from_numpy(decision.mirror.host["hidden"].copy()).to(step.x.dtype)
    shared(self, step, layer, replace(decision, hidden=copied))


attend, shared = forward_module.Forward.attend, forward_module.Forward.shared
BAKED = {
    "rows of the cache": ("begin", baked_begin),
    "length": ("attend", baked_start),
    "angles": ("attend", baked_rotation),
    "the experts' sum": ("combine", baked_sum),
    "the shared expert's input": ("shared", other_hidden),
}


@pytest.mark.parametrize("fault", BAKED)
def test_what_is_baked_in_is_seen(fault, tiny_dir, monkeypatch):
    """Eager it is right, so that nothing but a replay can tell."""
    want = decoded(cheap_model(tiny_dir), [1] * 6)
    monkeypatch.setattr(forward_module.Forward, *BAKED[fault])
    assert np.array_equal(decoded(cheap_model(tiny_dir), [1] * 6), want)
    assert not np.array_equal(decoded(cheap_model(tiny_dir, capture), [1] * 6), want)


def test_the_host_is_waited_for_once_a_layer(tiny_dir):
    model = cheap_model(tiny_dir, capture)
    decoded(model, [1] * 3)
    before = model.backbone.stats()
    for at in range(3, 9):
        logits(model, tokens(1, at), at)
    after = model.backbone.stats()
    steps, layers = 6, model.text.moe_layers
    assert after["syncs"] - before["syncs"] == steps * (layers + 1)  # and for the logits
    assert after["replayed"] - before["replayed"] == steps * (2 * layers + 1)
    assert after["eager"] == before["eager"]
    assert after["captured"] == before["captured"] == 2 * layers + 1


def test_an_extra_wait_is_counted(tiny_dir, monkeypatch):
    model = cheap_model(tiny_dir)
    backbone = model.backbone
    route = backbone.route

    def twice(layer, x):
        route(layer, x)
        return route(layer, x)

    monkeypatch.setattr(type(backbone), "route", lambda _, layer, x: twice(layer, x))
    logits(model, [1], 0)
    assert backbone.stats()["syncs"] == 2 * model.text.moe_layers + 1


def test_a_guess_disturbs_nothing(tiny_dir):
    """The next router is asked while the layer's experts still read what the last one said."""
    model = cheap_model(tiny_dir, capture, guesses=True)
    assert np.array_equal(decoded(model, [1] * 6), decoded(cheap_model(tiny_dir), [1] * 6))
    assert model.experts.guessed
    x = model.backbone.attend(1, model.backbone.embed([7]), 6)
    said = model.backbone.route(1, x)
    kept = said.hidden.copy(), said.expert_ids.copy(), said.weights.copy()
    own = model.backbone.shared(1, said).clone()
    guess = model.backbone.route(2, x)
    assert not np.array_equal(guess.hidden, kept[0])
    for now, then in zip((said.hidden, said.expert_ids, said.weights), kept, strict=True):
        assert np.array_equal(now, then)
    assert torch.equal(model.backbone.shared(1, said), own)


@pytest.mark.parametrize("count", BUCKETS)
def test_two_streams_of_one_bucket(count, tiny_dir):
    """The second has memory of its own: blocks of one prompt, or a stream that somebody kept."""
    model, plain = cheap_model(tiny_dir, capture), cheap_model(tiny_dir)
    ids = tokens(2 * count)
    blocks = [Block(ids[:count], 0), Block(ids[count:], count)]
    for _ in range(4):
        found = [model.logits(x) for x in model.forward(blocks)]
        want = [plain.logits(x) for x in plain.forward(blocks)]
        assert np.array_equal(found, want)
    kept = model.forward([Block(ids[:count], 0)])
    logits(model, ids[count:], count)
    assert np.array_equal(model.logits(*kept), want[0])


def test_a_step_that_was_broken_off_leaves_nothing_behind(tiny_dir):
    model = cheap_model(tiny_dir, capture)
    want = decoded(cheap_model(tiny_dir), [1] * 8)
    decoded(model, [1] * 7)
    for layer in range(model.text.num_hidden_layers):
        asked = 0

        def poll(layer=layer):
            nonlocal asked
            asked += 1
            if asked > layer:
                raise StopIteration

        with suppress(StopIteration):
            model.forward([Block([5], 7)], poll)
        assert np.array_equal(logits(model, tokens(1, 7), 7)[0], want[7])
    assert model.backbone.stats()["eager"] <= 2 * (2 * model.text.moe_layers + 1)


def test_the_order_of_launches():
    ran = []
    graphs = Graphs(lambda work: work() or (lambda: ran.append("again")))
    for _ in range(4):
        graphs.run("a", lambda: ran.append("a"))
    graphs.once(lambda: ran.append("once"))
    assert ran == ["a", "a", "again", "again", "once"]
    assert (graphs.launches.eager, graphs.launches.captured, graphs.launches.replayed) == (2, 1, 2)


def test_what_cannot_be_captured_runs_eagerly_and_is_told_once(tiny_dir, monkeypatch, caplog):
    """The second piece of a step asks for a value on the way."""
    want = decoded(cheap_model(tiny_dir), [1] * 5)

    def asking(self, step, layer, decision):
        assert step.x.sum().item() != 0
        shared(self, step, layer, decision)

    monkeypatch.setattr(forward_module.Forward, "shared", asking)
    model = cheap_model(tiny_dir, capture)
    with caplog.at_level(logging.WARNING, "hybrid.gpu_attention.graphs"):
        found = decoded(model, [1] * 5)
    assert np.array_equal(found, want)
    (record,) = caplog.records
    assert record.getMessage() == (
        "decode runs without CUDA graphs, capturing failed: "
        "operation not permitted when stream is capturing"
    )
    assert model.backbone.stats()["captured"] == 1  # what was captured before is replayed on


def test_an_error_of_the_work_itself_is_raised():
    def fail(work):
        work()

    def work():
        raise KernelError("no kernel")

    graphs = Graphs(fail)
    for _ in range(2):
        with pytest.raises(KernelError, match="no kernel"):
            graphs.run("a", work)


class FakeCuda:
    """As much of torch.cuda as a capture touches; notes what it is asked for."""

    def __init__(self):
        self.asked = []

    def Stream(self, device):  # noqa: N802 - torch's names
        return SimpleNamespace(device=device)

    def CUDAGraph(self):  # noqa: N802
        return SimpleNamespace(replay=lambda: self.asked.append("replay"))

    def graph_pool_handle(self):
        return "pool"

    def current_stream(self, device):
        return "own"

    @contextmanager
    def stream(self, stream):
        self.asked.append(f"on {stream}")
        try:
            yield
        finally:
            self.asked.append("off")

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        assert (pool, stream.device, capture_error_mode) == ("pool", "cuda:1", "thread_local")
        self.asked.append("begin")
        try:
            yield
        finally:
            self.asked.append("end")


def test_cuda_captures_once_and_comes_back_to_its_stream(monkeypatch):
    cuda = FakeCuda()
    monkeypatch.setattr(graphs_module.torch, "cuda", cuda)
    capturing = graphs_module.CudaCapture("cuda:1")
    again = capturing(lambda: cuda.asked.append("work"))
    assert cuda.asked == ["on own", "begin", "work", "end", "off", "replay"]
    again()
    assert cuda.asked[6:] == ["replay"]

    def refused():
        raise RuntimeError("not permitted")

    cuda.asked.clear()
    with pytest.raises(RuntimeError, match="not permitted"):
        capturing(refused)
    assert cuda.asked == ["on own", "begin", "end", "off"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_cuda_graphs_say_what_eager_work_says(tiny_dir):
    accelerator = CudaAccelerator()
    capture_cuda = graphs_module.CudaCapture(accelerator.device)
    model = cheap_model(tiny_dir, capture_cuda, accelerator, torch.bfloat16)
    plain = cheap_model(tiny_dir, None, accelerator, torch.bfloat16)
    assert np.array_equal(decoded(model, WALK), decoded(plain, WALK))
    assert model.backbone.stats()["replayed"] > 50
    accelerator.close()
