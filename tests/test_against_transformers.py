"""Logits, routing and greedy text of the whole runtime against transformers' native model.

What is compared: our runtime on the packed checkpoint, theirs in fp32 on the weights unpacked by
`compressed-tensors`. With activation="bf16" the two differ where we round to bf16: the inputs of
the experts' matrices and the rows of the KV cache, each by at most 2^-9 of the value. The bound is
how far logits move when all these values are off by 2^-9 at once (`Oracle.sensitivity`).

A rounding may also flip a choice of the router between two nearly equal experts, and then nothing
is small any more. So prompts are chosen, by the oracle alone, such that no rounding can do that.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import hybrid
from hybrid.model import Block
from tests.conftest import SHAPES
from tests.reference.transformers_model import Oracle

pytestmark = pytest.mark.oracle

BF16 = 2.0**-9  # unit roundoff
FP32_NOISE = 1e-4  # sums of up to a few hundred fp32 terms at magnitude 60, in another order
KV_TOKENS = 512


@pytest.fixture(scope="module")
def engines(checkpoint_dir):
    made: dict[tuple[str, str], hybrid.Engine] = {}

    def make(name: str, activation: str) -> hybrid.Engine:
        if (name, activation) not in made:
            made[name, activation] = hybrid.load(
                checkpoint_dir(name), device="cpu", activation=activation, kv_tokens=KV_TOKENS
            )
        return made[name, activation]

    return make


def prompt(seed: int, tokens: int, vocab: int = 768) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocab, tokens).tolist()


def chosen(oracle: Oracle) -> list[np.ndarray]:
    """Sets of experts of the last run: [tokens, k] sorted, for each layer with experts."""
    return [np.sort(ids, axis=-1) for ids in oracle.routing]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def steady_prompt(oracle: Oracle, tokens: int = 10) -> list[int]:
    """A prompt whose routing survives errors of four times the rounding, in several draws."""
    for seed in range(300):
        ids = prompt(seed, tokens)
        oracle.logits(ids)
        exact = chosen(oracle)
        if all(same(exact, _disturbed(oracle, ids, draw)) for draw in range(4)):
            return ids
    raise AssertionError("no prompt with steady routing among 300")


def _disturbed(oracle: Oracle, ids: list[int], draw: int) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(draw)
    oracle.logits(
        ids,
        lambda x: x * (1 + 4 * BF16 * (torch.rand(x.shape, generator=generator) * 2 - 1)),
    )
    return chosen(oracle)


@pytest.mark.parametrize("name", SHAPES)
def test_logits_agree_to_bf16_rounding(name, oracle, engines, record_property):
    judge = oracle(name)
    ids = steady_prompt(judge)
    exact = judge.logits(ids)
    bound = judge.sensitivity(ids, BF16) + FP32_NOISE
    deviation = {
        activation: float(np.abs(engines(name, activation).logits(ids) - exact).max())
        for activation in ("bf16", "int8")
    }
    report = f"{name}: |logits| <= {np.abs(exact).max():.1f}, std {exact.std():.1f}; "
    report += f"bf16 off by {deviation['bf16']:.2e} (bound {bound:.2e}), "
    report += f"int8 off by {deviation['int8']:.2e}"
    record_property("deviation", report)  # in the JUnit file
    assert exact.std() > 1, "flat logits would hide every error"
    assert deviation["bf16"] <= bound
    assert deviation["int8"] > deviation["bf16"], "is int8 really in use?"


@pytest.mark.parametrize("name", SHAPES)
def test_the_bound_is_tight_enough_to_see_one_wrong_expert(name, oracle, engines):
    """A bound that a broken runtime also meets proves nothing: swap two experts of one layer."""
    judge = oracle(name)
    ids = steady_prompt(judge)
    bound = judge.sensitivity(ids, BF16) + FP32_NOISE
    exact = judge.logits(ids)
    first, second = (int(e) for e in judge.routing[-1][0][:2])
    layers = engines(name, "bf16")._timeline.model.experts.layers
    layer = next(e for e in reversed(layers) if e is not None)
    with _swapped(layer.where, first, second):
        broken = engines(name, "bf16").logits(ids)
    assert np.abs(broken - exact).max() > bound
    assert np.abs(engines(name, "bf16").logits(ids) - exact).max() <= bound


class _swapped:  # noqa: N801  reads as a verb in a with statement
    def __init__(self, where: np.ndarray, first: int, second: int) -> None:
        self._where, self._pair = where, [first, second]

    def __enter__(self) -> None:
        self._where[self._pair] = self._where[self._pair[::-1]]

    __exit__ = lambda self, *_: self.__enter__()  # noqa: E731


@pytest.mark.parametrize("name", SHAPES)
def test_routing_agrees(name, oracle, engines, recorded_routing):
    """The same experts for every token whose scores are not a near tie."""
    judge, ids = oracle(name), prompt(11, 60)
    judge.logits(ids)
    ours = recorded_routing(engines(name, "bf16"), ids)
    theirs = chosen(judge)
    assert len(ours) == len(theirs)
    pairs = zip(ours, theirs, strict=True)
    equal = np.mean([np.all(np.sort(a, -1) == b, axis=-1).mean() for a, b in pairs])
    assert equal > 0.9


@pytest.fixture
def recorded_routing(monkeypatch) -> Callable[[hybrid.Engine, list[int]], list[np.ndarray]]:
    def run(engine: hybrid.Engine, ids: list[int]) -> list[np.ndarray]:
        seen: list[np.ndarray] = []
        backbone = type(engine._timeline.model.backbone)
        route = backbone.route

        def spy(self, layer, x):
            routing = route(self, layer, x)
            seen.append(routing.expert_ids.copy())
            return routing

        monkeypatch.setattr(backbone, "route", spy)
        engine.logits(ids)
        return seen

    return run


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_text_equals_theirs(name, oracle, engines):
    engine = engines(name, "bf16")
    ids, expected = clear_continuation(oracle(name))
    sampling = hybrid.SamplingParams(temperature=0.0, max_tokens=len(expected), logprobs=0)
    events = list(engine.generate(ids, sampling))
    got = [entry.token_id for event in events for entry in event.logprobs]
    stop_ids = engine.tokenizer.stop_ids
    stop = next((at for at, token in enumerate(expected) if token in stop_ids), len(expected))
    assert got == expected[:stop]


def clear_continuation(judge: Oracle, count: int = 8) -> tuple[list[int], list[int]]:
    """A prompt and its greedy continuation, no token of which is a near tie."""
    for seed in range(100):
        ids = prompt(1000 + seed, 10)
        expected = judge.greedy(ids, count)
        logits = judge.logits(ids + expected)[len(ids) - 1 : -1]
        margin = np.diff(np.sort(logits, axis=-1)[:, -2:], axis=-1).min()
        if margin > 2 * judge.sensitivity(ids + expected, BF16, draws=2):
            return ids, expected
    raise AssertionError("no clear continuation among 100 prompts")


@pytest.mark.parametrize("activation", ["bf16", "int8"])
def test_decode_equals_prefill(engines, activation):
    """Token by token, in blocks, or at once: the same logits, bit for bit on the CPU."""
    engine, ids = engines("k2.5", activation), prompt(5, 70)
    whole = engine.logits(ids)
    model = engine._timeline.model
    for cuts in ([1] * 70, [3, 40, 1, 26], [69, 1]):
        start, rows = 0, []
        for count in cuts:
            rows.append(model.logits(*model.forward([Block(ids[start : start + count], start)])))
            start += count
        assert np.array_equal(np.concatenate(rows), whole)
