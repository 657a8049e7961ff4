"""The device's side of a step on a "cuda" that is not there: right devices, and nobody waits.

Fake tensors have shapes, types and devices but no memory, so that the true K2.5 runs too. Whatever
is launched passes `Watch`: what touches another device, or makes the host wait, fails.
"""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hybrid.checkpoint.expected import expected_tensors
from hybrid.config import ModelConfig
from hybrid.gpu_attention import backbone as backbone_module
from hybrid.gpu_attention import forward as forward_module
from hybrid.gpu_attention import weights as weights_module
from hybrid.gpu_attention.backbone import BUCKETS, TorchBackbone
from hybrid.gpu_attention.codes import GROUP, Int8Weight
from hybrid.gpu_attention.weights import WeightReader
from hybrid.model import Block, Model
from hybrid.placement import builtin_config
from hybrid.placement.needs import needs
from hybrid.progress import ignore
from tests.reference.recorded_graph import is_composite

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
# what waits for the device, by what it is called there
WAITS = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.equal,
    aten.is_nonzero,
    aten.repeat_interleave,  # by a tensor: how long is the result?
}
FROM_HOST = {aten.lift_fresh, aten.lift_fresh_copy}  # torch.tensor(…): a copy that waits
INDEXED = {aten.index, aten.index_put, aten.index_put_}  # by a mask it waits; nothing here needs it


class Watch(TorchDispatchMode):
    """Looks at every operation that is launched."""

    def __init__(self) -> None:
        super().__init__()
        self.launched = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == "prim":  # a question to the tensor object
            return func(*args, **kwargs)
        if is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        name = func.overloadpacket
        by_number = func is aten.repeat_interleave.self_int
        assert by_number or name not in WAITS, f"{func} waits for the device"
        assert name not in FROM_HOST, f"{func} brings values from the host"
        assert name not in INDEXED, f"{func} indexes by a tensor"
        out = func(*args, **kwargs)
        for each in tree_leaves((args, kwargs, out)):
            if isinstance(each, Tensor):
                assert each.device == CUDA, f"{func} touches {each.device}"
        self.launched += 1
        return out


class Nothing:
    """An event of a device that does nothing: all is done."""

    done = True

    def wait(self) -> None:
        pass


class FakeQueue:
    """The caller's queue on the fake device; copies over the link are counted."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.up = self.down = 0

    def run(self, work) -> None:
        with self.watch:
            work()

    def copy(self, target, source) -> None:
        assert tuple(target.shape) == tuple(source.shape)
        assert target.dtype == source.dtype
        if target.device == CUDA:
            assert source.device.type == "cpu"
            self.up += source.nbytes
        else:
            assert source.device == CUDA
            self.down += source.nbytes

    def record(self) -> Nothing:
        return Nothing()


class Pinned:
    """As much of a tensor of the host's as is asked of pinned memory; it is real, and all zeros."""

    device, dtype = torch.device("cpu"), torch.uint8

    def __init__(self, nbytes) -> None:
        self.nbytes, self.shape = nbytes, (nbytes,)
        self._memory = np.zeros(nbytes, np.uint8)

    def numpy(self):
        return self._memory


class SilentExperts:
    """hybrid.cache.Tiers' calls; nothing is said, but the next layer's router is asked."""

    def __init__(self, text, guesses) -> None:
        self._last = text.num_hidden_layers - 1 if guesses else 0

    def start(self, layer, routing, prompt):
        return layer, routing.hidden

    def finish(self, step, ahead):
        layer, hidden = step
        if layer < self._last:
            ahead()
        return np.zeros_like(hidden)


class FakeCuda:
    """An accelerator of which only the shapes are true; the host's memory is real."""

    name, device = "fake", CUDA

    def __init__(self) -> None:
        self.queue = FakeQueue()

    def current(self) -> FakeQueue:
        return self.queue

    def pinned(self, nbytes):
        return Pinned(nbytes)


class FakeReader(WeightReader):
    """Weights of the right shape: on the device without memory, on the host one zero for all."""

    def __init__(self, config: ModelConfig, weights: str = "bf16") -> None:
        super().__init__(None, CUDA, torch.bfloat16, 1, ignore, weights)
        wanted = expected_tensors(replace(config, vision=None))
        self._shapes = {each.name: each.shape for each in wanted if each.component != "routed"}

    def __call__(self, name, dtype=None):
        return torch.empty(self._shapes[name], dtype=dtype or torch.bfloat16, device=CUDA)

    def on_host(self, name, dtype=None):
        with unset_fake_temporarily():
            return torch.zeros((), dtype=dtype or torch.bfloat16).expand(self._shapes[name])


KV_TOKENS = 4096
K25 = builtin_config()


def real_bits(values):
    with unset_fake_temporarily():
        return bits(values)


bits = backbone_module._bits


@pytest.fixture
def fake(monkeypatch):
    """Makes models on the fake device; the mode lasts as long as the test."""
    monkeypatch.setattr(backbone_module, "_bits", real_bits)  # of the embedding, on the host
    monkeypatch.setattr(forward_module, "_read_router", lambda reader, name: reader(name))
    # their bindings ask for the device itself, which a CPU build of torch cannot do
    monkeypatch.setattr(Tensor, "contiguous", lambda x: aten.contiguous.default(x))
    monkeypatch.setattr(Tensor, "copy_", lambda x, source: aten.copy_.default(x, source))
    with FakeTensorMode(allow_non_fake_inputs=True):

        def make(config: ModelConfig, weights: str = "bf16", guesses: bool = True) -> Model:
            reader, text = FakeReader(config, weights), config.text
            backbone = TorchBackbone(text, reader, KV_TOKENS, torch.bfloat16, FakeCuda())
            return Model(text, backbone, SilentExperts(text, guesses))

        yield make


def queue(model) -> FakeQueue:
    return model.backbone._queue


def step(model, tokens, start):
    (x,) = model.forward([Block([1] * tokens, start)], prompt=False)
    return model.logits(model.backbone.last(x))


@pytest.mark.parametrize("weights", ["bf16", "int8"])
@pytest.mark.parametrize("tokens", [*BUCKETS, 3, 200])
def test_tiny_models_never_leave_the_device(tokens, weights, fake, tiny_dir):
    model = fake(ModelConfig.from_dir(tiny_dir), weights)
    assert step(model, tokens, 70).shape == (1, model.text.vocab_size)
    assert queue(model).watch.launched > 100


def crossing(text, tokens):
    """Bytes that a mirror of these arrays takes, by name: each array from a multiple of 256 on."""

    def padded(*nbytes):
        return sum(-(-each // 256) * 256 for each in nbytes)

    hidden, pairs = text.hidden_size, tokens * text.qk_rope_head_dim // 2 * 4
    choice = tokens * text.num_experts_per_tok * 4
    return {
        "up": padded(4, 4 * tokens, pairs, pairs, 2 * tokens * hidden),
        "routed": padded(4 * tokens * hidden),
        "decision": padded(choice, choice, 4 * tokens * hidden),
        "logits": padded(4 * text.vocab_size),
    }


@pytest.mark.parametrize("tokens", [1, 130])
def test_k25_never_leaves_the_device(tokens, fake):
    """A decode step, and a block of a prompt that rebuilds keys and values, at 3,000 tokens."""
    model = fake(K25, guesses=False)
    step(model, tokens, 3000)
    text, nbytes, moved = model.text, crossing(model.text, tokens), queue(model)
    assert moved.up == nbytes["up"] + text.moe_layers * nbytes["routed"]
    logits = nbytes["logits"] * (tokens if tokens == 1 else 1)
    assert moved.down == text.moe_layers * nbytes["decision"] + logits
    assert model.backbone.stats()["syncs"] == text.moe_layers + 1


def tensors(part):
    """All tensors of nested dataclasses and lists."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, list):
        for each in part:
            yield from tensors(each)
    elif is_dataclass(part):
        for each in fields(part):
            yield from tensors(getattr(part, each.name))


def shape_of_codes(matrix):
    """What `codes.encode` returns, without the thousands of operations that make it."""
    groups = -(-matrix.shape[-1] // GROUP)
    scales = matrix.new_empty((*matrix.shape[:-1], groups), dtype=torch.bfloat16)
    return Int8Weight(torch.empty_like(matrix, dtype=torch.int8), scales)


@pytest.mark.parametrize(("weights", "total"), [("bf16", 21.1e9), ("int8", 11.36e9)])
def test_k25_takes_the_memory_that_the_plan_says(weights, total, fake, monkeypatch):
    monkeypatch.setattr(weights_module, "encode", shape_of_codes)
    model = fake(K25, weights)
    own = model.backbone._forward
    cache = sum(each.nbytes for each in tensors(own.cache) if each is not own.cache.table)
    assert cache == KV_TOKENS * 70_272
    plan = needs(K25, weights=weights, vision=False)
    kept = sum(each.nbytes for each in tensors(own)) - sum(t.nbytes for t in tensors(own.cache))
    assert kept == plan.token_bytes("attention", "norms", "dense", "router", "shared", "head")
    assert kept == pytest.approx(total, rel=0.01)


def asked(step):
    return step.x.sum().item()


def branched(step):
    return bool(step.x.sum() > 0)


def fetched(step):
    return step.x.cpu()


def made_on_the_host(step):
    return step.x * torch.full((1,), 2.0)


def brought(step):
    return torch.tensor([1.0], device=CUDA)


def counted(step):
    return aten.nonzero.default(step.x)


def masked(step):
    return torch.masked_select(step.x, step.x > 0)


def indexed(step):
    return aten.index.Tensor(step.x, [step.slots])


def sized(step):
    return torch.repeat_interleave(step.slots, step.slots)


@pytest.mark.parametrize(
    "fault",
    [asked, branched, fetched, made_on_the_host, brought, counted, masked, indexed, sized],
)
def test_what_waits_or_leaves_the_device_is_seen(fault, fake, tiny_dir, monkeypatch):
    model = fake(ModelConfig.from_dir(tiny_dir))
    shared = forward_module.Forward.shared

    def faulty(self, step, layer, decision):
        fault(step)
        shared(self, step, layer, decision)

    step(model, 1, 0)
    monkeypatch.setattr(forward_module.Forward, "shared", faulty)
    with pytest.raises(AssertionError, match=r"waits for|touches|from the host|indexes by"):
        step(model, 1, 1)
