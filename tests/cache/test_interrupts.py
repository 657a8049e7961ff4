"""Ctrl-C at any bytecode of the cache: the next step has the same bits, and no slot is lost.

And `close` while another thread is in the middle of an answer: nobody hangs.
"""

import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hybrid.backbone import Routing
from hybrid.cache import tiers as tiers_module
from hybrid.cache import warm_start
from hybrid.cache.tiers import Tiers
from hybrid.errors import KernelError, RequestError
from tests import interrupting
from tests.cache.tiered import (
    SHAPE,
    answers,
    check_books,
    load,
    on_cards,
    shake,
    tiers_of,
    write_model,
)

CACHE = Path(tiers_module.__file__).parent
WATCHED = str(CACHE), str(CACHE.parent / "accelerator")
EXPERTS, CHOSEN = SHAPE.n_routed_experts, SHAPE.num_experts_per_tok
BUDGETS = [(8, 24), (20, 44), (0, 8), (40, 4)]  # all but the second read from the file
CASES = [
    *((budgets, "threads", 500) for budgets in BUDGETS),
    ((8, 24), "a card", 150),
    ((8, 24), "a slow link", 150),
    ((20, 44), "three cards", 150),
    ((8, 24), "two cards, streamed", 150),
    ((0, 8), "streamed", 150),
]  # and turns
PATIENCE = 30
BACKGROUND = "records", "promotions", "device", "card", "ring"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("interrupts") / "model")


@pytest.fixture(scope="module")
def plain(model_dir):
    with load(model_dir, None, None) as engine:
        yield tiers_of(engine)


@pytest.fixture(autouse=True)
def no_earlier_run(monkeypatch):
    monkeypatch.setattr(warm_start, "recall", lambda *_: None)
    monkeypatch.setattr(warm_start, "keep", lambda *_: None)


def interrupted(call, at):
    """Ctrl-C in the cache or in the devices below it."""
    return interrupting.interrupted(call, at, lambda file: file.startswith(WATCHED))


def routing(rng, hidden):
    tokens = int(rng.choice([1, 1, 1, 1, 3, 30]))
    ids = np.stack([rng.permutation(EXPERTS)[:CHOSEN] for _ in range(tokens)]).astype(np.int32)
    x = rng.standard_normal((tokens, hidden)).astype(np.float32)
    return Routing(x, ids, rng.random(ids.shape).astype(np.float32))


def step(tiers, rng, layer, asked):
    def guess():
        return rng.permutation(EXPERTS)[:CHOSEN].astype(np.int32)[None]

    return np.asarray(tiers.finish(tiers.start(layer, asked, len(asked.expert_ids) > 1), guess))


def play(tiers, plain, seed, turns=500):
    """Steps of which most are interrupted somewhere; each is then done again and compared."""
    dice, rng, broken = random.Random(seed), np.random.default_rng(seed), 0
    for turn in range(turns):
        layer, asked = turn % 4 + 1, routing(rng, tiers.slots.shape.hidden)
        at = round(10 ** dice.uniform(0, 3.7))
        broken += interrupted(lambda: step(tiers, rng, layer, asked), at)  # noqa: B023
        want = step(plain, rng, layer, asked)
        np.testing.assert_array_equal(step(tiers, rng, layer, asked), want, strict=True)
        check_books(tiers)
    return broken


@pytest.mark.parametrize(("budgets", "kind", "turns"), CASES, ids=str)
def test_after_an_interrupt_anywhere_the_next_step_is_right(
    budgets, kind, turns, model_dir, plain, monkeypatch
):
    on_cards(monkeypatch, kind)
    shake(monkeypatch, 1, most_s=0.0003)
    with load(model_dir, *budgets, cache_policy="lru") as engine:
        assert play(tiers_of(engine), plain, sum(budgets), turns) > turns // 3


@pytest.mark.parametrize("kind", ["threads", "two cards, streamed"])
def test_a_step_that_is_not_tidied_up_after_would_be_seen(kind, model_dir, plain, monkeypatch):
    """The planted fault: an interrupted step is merely forgotten."""

    def forget(self):
        self._step = None

    on_cards(monkeypatch, kind)
    monkeypatch.setattr(Tiers, "_abandon", forget)
    shake(monkeypatch, 1, most_s=0.0003)
    with load(model_dir, 8, 24, cache_policy="lru") as engine:

        def some():
            for seed in range(6):
                play(tiers_of(engine), plain, seed)

        # wrong bits, lost slots, or an expert that the step believes to be where it is not
        shown = AssertionError, KernelError, KeyError, RequestError
        with pytest.raises(shown, check=_is_of_the_fault):
            some()


def _is_of_the_fault(error):
    return not isinstance(error, RequestError) or "has no weights" in str(error)


@pytest.mark.parametrize("kind", ["threads", "two cards, streamed"])
def test_an_interrupt_while_tidying_up_is_tidied_up_too(kind, model_dir, plain, monkeypatch):
    on_cards(monkeypatch, kind)
    shake(monkeypatch, 1, most_s=0.0003)
    dice, rng = random.Random(3), np.random.default_rng(3)
    with load(model_dir, 8, 24, cache_policy="lru") as engine:
        tiers = tiers_of(engine)
        for turn in range(60):
            layer, asked = turn % 4 + 1, routing(rng, tiers.slots.shape.hidden)
            if interrupted(lambda: step(tiers, rng, layer, asked), dice.randrange(50, 800)):  # noqa: B023
                interrupted(tiers._abandon, dice.randrange(1, 400))
            want = step(plain, rng, layer, asked)
            np.testing.assert_array_equal(step(tiers, rng, layer, asked), want)
            check_books(tiers)


@pytest.mark.parametrize("kind", ["threads", "two cards, streamed"])
@pytest.mark.parametrize("at", [1, 10, 40, 80, 150, 250])
def test_a_close_that_is_interrupted_can_be_repeated(at, kind, model_dir, monkeypatch):
    on_cards(monkeypatch, kind)
    engine = load(model_dir, 8, 24)
    tiers = tiers_of(engine)
    interrupted(tiers.close, at)
    tiers.close()
    deadline = time.perf_counter() + PATIENCE
    while [t for t in threading.enumerate() if t.name.startswith(BACKGROUND)]:
        assert time.perf_counter() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("budgets", "kind", "_"), CASES, ids=str)
def test_who_is_in_an_answer_when_another_thread_closes_is_told_so(
    budgets, kind, _, model_dir, monkeypatch
):
    on_cards(monkeypatch, kind)
    shake(monkeypatch, 2, most_s=0.003)
    dice = random.Random(sum(budgets))
    for _ in range(6):
        engine, ended = load(model_dir, *budgets, cache_policy="lru"), []

        def talk(engine=engine, ended=ended):
            try:
                while True:
                    answers(engine, range(300, 310), tokens=50)
            except (KernelError, RequestError) as error:
                ended.append(error)

        talker = threading.Thread(target=talk)
        talker.start()
        time.sleep(dice.random() * 0.05)
        engine.close()
        talker.join(PATIENCE)
        assert not talker.is_alive()
        assert "closed" in str(ended[0])
