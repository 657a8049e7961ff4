"""The torch backbone against transformers, tightly, and each known mistake planted and caught.

Experts are the exact float64 function here, so that nothing is rounded to bf16 and the two fp32
models differ by the order of their sums alone.
"""

import numpy as np
import pytest
import torch

from hybrid import yarn
from hybrid.accelerator.host import HostAccelerator
from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig
from hybrid.cpu_dense.backbone import CpuBackbone
from hybrid.gpu_attention import forward, mla
from hybrid.gpu_attention.backbone import TorchBackbone
from hybrid.gpu_attention.kv_cache import LatentCache
from hybrid.gpu_attention.weights import WeightReader
from hybrid.model import Block, Model
from hybrid.progress import ignore
from tests.conftest import SHAPES
from tests.reference.experts import Matrix
from tests.reference.torch_models import CheapExperts, cheap_model

pytestmark = pytest.mark.oracle
torch.set_num_threads(1)  # tiny matrices: a second thread only waits for the first

# Logits reach 60. Each is the end of a chain of some 12 sums a layer of up to 128 terms, each term
# rounded at 2^-24: sqrt(5 layers * 12 * 128) * 2^-24 * 60 = 3e-4 if all add up at full size.
BOUND = 3e-4


class ExactExperts:
    """The experts of one layer in float64."""

    flipped_bits = 0

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig, layer: int) -> None:
        base = f"model.layers.{layer}.mlp.experts"
        self._matrices = [
            [self._dense(checkpoint, f"{base}.{e}.{name}_proj") for name in ("gate", "up", "down")]
            for e in range(config.text.n_routed_experts)
        ]

    def forward(self, x, expert_ids, weights):
        out = np.zeros(x.shape)
        for token, (ids, factors) in enumerate(zip(expert_ids, weights, strict=True)):
            for e, factor in zip(ids, factors, strict=True):
                gate, up, down = self._matrices[e]
                g = gate @ x[token].astype(np.float64)
                out[token] += factor * (down @ (g / (1 + np.exp(-g)) * (up @ x[token])))
        return out.astype(np.float32)

    def _dense(self, checkpoint: Checkpoint, name: str) -> np.ndarray:
        packed = checkpoint.tensor(f"{name}.weight_packed").view(np.uint32)
        packed = (packed ^ np.uint32(self.flipped_bits)).view(np.int32)
        return Matrix(packed, checkpoint.tensor(f"{name}.weight_scale")).dense


class ExactTiers:
    """All layers, under the calling convention of hybrid.cache.Tiers."""

    def __init__(self, layers):
        self._layers = layers

    def start(self, layer, routing, prompt):
        return self._layers[layer], routing

    def finish(self, step, ahead):
        experts, routing = step
        return experts.forward(routing.hidden, routing.expert_ids, routing.weights)


def torch_model(model_dir, dtype=torch.float32, kv_tokens=512) -> Model:
    config = ModelConfig.from_dir(model_dir)
    with Checkpoint.open(model_dir, config) as checkpoint:
        reader = WeightReader(checkpoint, torch.device("cpu"), dtype, 1, ignore)
        built = TorchBackbone(config.text, reader, kv_tokens, dtype, HostAccelerator())
        layers = range(config.text.num_hidden_layers)
        experts = [
            ExactExperts(checkpoint, config, layer) if config.text.is_moe(layer) else None
            for layer in layers
        ]
    return Model(config.text, built, ExactTiers(experts))


@pytest.fixture(scope="module")
def models(checkpoint_dir):
    made: dict[str, Model] = {}

    def make(name: str) -> Model:
        if name not in made:
            made[name] = torch_model(checkpoint_dir(name))
        return made[name]

    return make


def run(model: Model, ids: list[int]) -> np.ndarray:
    return model.logits(*model.forward([Block(ids, 0)]))


def prompt(tokens: int = 40) -> list[int]:
    return np.random.default_rng(3).integers(0, 768, tokens).tolist()


@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_transformers(name, models, oracle):
    exact = oracle(name).logits(prompt())
    assert exact.std() > 1
    assert np.abs(run(models(name), prompt()) - exact).max() <= BOUND


@pytest.mark.parametrize("name", SHAPES)
def test_both_forms_of_attention_and_single_steps_agree(name, models, oracle, monkeypatch):
    exact = oracle(name).logits(prompt())
    model = models(name)
    for expanded_from in (1, 10**9):
        monkeypatch.setattr(mla, "EXPANDED_FROM", expanded_from)
        assert np.abs(run(model, prompt()) - exact).max() <= BOUND
    monkeypatch.setattr(mla, "SCORE_BYTES", 4 * 40 * 40)  # one head at a time
    assert np.abs(run(model, prompt()) - exact).max() <= BOUND
    steps = [model.logits(*model.forward([Block([t], at)])) for at, t in enumerate(prompt())]
    assert np.abs(np.concatenate(steps) - exact).max() <= BOUND


def test_positions_beyond_the_trained_context(models, oracle):
    """YaRN's stretched pairs matter only far out: 400 positions against 256 trained ones."""
    ids = prompt(400)
    exact = oracle("k2.5").logits(ids)
    assert np.abs(run(models("k2.5"), ids) - exact).max() <= BOUND


def test_bf16_stays_near(checkpoint_dir, oracle):
    """In bf16 every activation is rounded; with steady routing logits stay within a few units."""
    ids = prompt(6)
    exact = oracle("k2.5").logits(ids)
    rounded = run(torch_model(checkpoint_dir("k2.5"), torch.bfloat16), ids)
    assert np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()


AT = 3  # where the rows of a picture begin
PICTURE = [11, 12, 13, 14]  # tokens that stand in for them


def on_host(flow):
    """The rows that the first layer will have."""
    rows = torch.from_numpy(flow.step.up.host["x"].copy())
    return rows if rows.dtype == torch.float32 else rows.view(torch.bfloat16)


def embedded(backbone, ids):
    return on_host(backbone.embed(ids))


def picture_rows(tokens=4, hidden=64):
    """Rows of the spread of embeddings, and no two alike."""
    return np.random.default_rng(8).standard_normal((tokens, hidden)).astype(np.float32)


def seeing(model, ids, *pictures):
    return model.logits(*model.forward([Block(ids, 0, pictures)]))


def test_logits_behind_a_picture_equal_transformers(models, oracle):
    rows, ids = picture_rows(), prompt(12)
    exact = oracle("k2.5").logits(ids, pictures={AT: rows})
    assert np.abs(seeing(models("k2.5"), ids, (AT, rows)) - exact).max() <= BOUND
    for wrong in ((AT + 1, rows), (AT - 1, rows), (AT, rows[::-1].copy()), (AT, rows[:-1])):
        assert np.abs(seeing(models("k2.5"), ids, wrong) - exact).max() > 100 * BOUND


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_picture_of_embeddings_is_the_words(checkpoint_dir, dtype):
    """Rows of the table, inserted, go the way of their tokens bit for bit; the table stays."""
    model = torch_model(checkpoint_dir("k2.5"), dtype)
    backbone, ids = model.backbone, prompt(10)
    words = [*ids[:AT], *PICTURE, *ids[AT + len(PICTURE) :]]
    rows = embedded(backbone, PICTURE).float().numpy()
    want = run(model, words)
    for pictures in ([(AT, rows)], [(AT, rows[:1]), (AT + 1, rows[1:])]):
        assert np.array_equal(seeing(model, ids, *pictures), want)
    assert not np.array_equal(run(model, ids), want)  # nothing of the picture is left behind
    assert np.array_equal(run(model, words), want)


def test_rows_are_rounded_to_the_type_of_the_stream(checkpoint_dir):
    backbone = torch_model(checkpoint_dir("k2.5"), torch.bfloat16).backbone
    rows = picture_rows()
    kept = rows.copy()
    x = on_host(backbone.insert(backbone.embed(prompt(8)), AT, rows))
    assert x.dtype == torch.bfloat16
    assert torch.equal(x[AT : AT + 4], torch.from_numpy(kept).bfloat16())
    others = [i for i in range(8) if not AT <= i < AT + 4]
    assert torch.equal(x[others], embedded(backbone, prompt(8))[others])
    assert np.array_equal(rows, kept)


def test_int8_weights_say_what_they_say_on_the_cpu(tiny_dir, monkeypatch):
    """The same codes: what int8 moves the logits by was measured on the CPU and holds here.

    The CPU's cache rows are bf16, so those of the fp32 model are rounded for once.
    """
    write = LatentCache.write

    def write_rounded(cache, layer, slots, latent):
        write(cache, layer, slots, latent.bfloat16().float())

    monkeypatch.setattr(LatentCache, "write", write_rounded)
    config = ModelConfig.from_dir(tiny_dir)
    with Checkpoint.open(tiny_dir, config) as checkpoint:
        cpu = CpuBackbone.load(config.text, checkpoint, kv_tokens=512, threads=1, weights="int8")
    on_cpu = run(Model(config.text, cpu, CheapExperts(config.text)), prompt(12))
    assert np.abs(run(cheap_model(tiny_dir, weights="int8"), prompt(12)) - on_cpu).max() <= BOUND
    assert np.abs(run(cheap_model(tiny_dir), prompt(12)) - on_cpu).max() > 100 * BOUND


def plain_scale(text):
    return (text.qk_nope_head_dim + text.qk_rope_head_dim) ** -0.5


def scaled_tables(text, start, count):
    cos, sin = cos_sin(text, start, count)
    return cos * 1.4159, sin * 1.4159


def half_split(x, cos, sin):
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), -1).to(x.dtype)


def biased_weights(hidden, gate, bias, text):
    scores = torch.sigmoid(hidden.float() @ gate.float().T)
    values, ids = torch.topk(scores + bias, text.num_experts_per_tok, dim=-1)
    return ids, values / values.sum(-1, keepdim=True) * text.routed_scaling_factor


def unbiased_selection(hidden, gate, bias, text):
    return route(hidden, gate, torch.zeros_like(bias), text)


def scaled_feed_forward(both, own):
    return 2.827 * gated(both, own)


cos_sin, route, gated = yarn.cos_sin, forward.route, forward._gated

FAULTS = {  # spec §7 (a)-(d) and their neighbours
    "a: softmax scale without m²": (yarn, "softmax_scale", plain_scale),
    "a: cos and sin scaled too": (yarn, "cos_sin", scaled_tables),
    "b: half-split rotation": (mla, "rotate", half_split),
    "c: bias in routing weights": (forward, "route", biased_weights),
    "c: bias not in the selection": (forward, "route", unbiased_selection),
    "d: shared expert scaled": (forward, "_gated", scaled_feed_forward),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault, checkpoint_dir, oracle, monkeypatch):
    exact = oracle("k2.5").logits(prompt())
    monkeypatch.setattr(*FAULTS[fault])
    assert np.abs(run(torch_model(checkpoint_dir("k2.5")), prompt()) - exact).max() > 100 * BOUND


def test_twos_complement_nibbles_are_seen(checkpoint_dir, oracle, monkeypatch):
    """Spec §7 (e): the other convention differs by bit 3 of every nibble."""
    monkeypatch.setattr(ExactExperts, "flipped_bits", 0x88888888)
    model = torch_model(checkpoint_dir("k2.5"))
    exact = oracle("k2.5").logits(prompt())
    assert np.abs(run(model, prompt()) - exact).max() > 100 * BOUND


def test_the_wrong_latent_eps_is_seen(checkpoint_dir, oracle, models):
    """1e-5 instead of 1e-6 moves logits by more than the bound: the eps is no free choice."""
    model = torch_model(checkpoint_dir("k2.5"))
    object.__setattr__(model.text, "latent_norm_eps", 1e-3)
    exact = oracle("k2.5").logits(prompt())
    assert np.abs(run(model, prompt()) - exact).max() > BOUND
