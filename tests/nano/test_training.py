"""Steps of training: they learn, they balance, and an interrupted run gives the same bits."""

import math
from dataclasses import replace

import pytest
import torch

from hybrid import KIMI_NANO
from hybrid.chat.tokenizer import Tokenizer
from hybrid.chat.vocabulary import Vocabulary
from nano.data import mix
from nano.data.vocabulary import NUMBERS, learnt
from nano.model.forward import Graph
from nano.model.parameters import BIAS, is_expert
from nano.model.rounding import bf16, int4
from nano.model.shape import model_config
from nano.training import muon
from nano.training.balance import balance, skew
from nano.training.evaluation import accuracy, nats
from nano.training.log import forget, plot, record, show
from nano.training.loop import step
from nano.training.muon import orthogonal
from nano.training.schedule import FIRST, FORK, HELD, LAST, SECOND, STAGES, Plan
from nano.training.state import load, load_vocabulary, save, save_vocabulary
from tests.nano.runs import fresh, same_bits, same_weights

PLAN = Plan(steps=6, tokens=300, micro=512, warm_up=2, rate=3e-3)


def test_a_resumed_run_gives_the_bits_of_an_uninterrupted_one(
    small_shape, nano_vocabulary, renderer, crew, tmp_path
):
    graph = Graph(model_config(small_shape, nano_vocabulary))
    straight = fresh(small_shape, nano_vocabulary, PLAN)
    for _ in range(6):
        step(straight, graph, renderer, crew)
    halted = fresh(small_shape, nano_vocabulary, PLAN)
    for _ in range(3):
        step(halted, graph, renderer, crew)
    save(tmp_path, halted)
    resumed = load(tmp_path)
    assert resumed.step == 3
    for _ in range(3):
        step(resumed, Graph(model_config(small_shape, nano_vocabulary)), renderer, crew)
    assert same_bits(resumed, straight)
    forgetful = load(tmp_path)
    forgetful.optimiser.count = 0
    for _ in range(3):
        step(forgetful, graph, renderer, crew)
    assert not same_weights(forgetful, straight)


def test_a_batch_can_be_learnt_by_heart(small_shape, nano_vocabulary, renderer, crew):
    plan = replace(PLAN, steps=60, warm_up=5, rate=1e-2)
    run, graph = fresh(small_shape, nano_vocabulary, plan), None
    graph = Graph(model_config(small_shape, nano_vocabulary))
    losses = []
    for _ in range(40):
        run.step = 10  # the same conversations, the same rate
        losses.append(step(run, graph, renderer, crew).loss)
    assert losses[-1] < 0.25 * losses[0]


def test_the_graph_sees_rounded_weights_after_every_step(
    small_shape, nano_vocabulary, renderer, crew
):
    run = fresh(small_shape, nano_vocabulary, PLAN)
    step(run, Graph(model_config(small_shape, nano_vocabulary)), renderer, crew)
    for name, master in run.weights.master.items():
        if is_expert(name):
            assert torch.equal(run.weights.seen[name], int4(master)), name
        elif not name.endswith(BIAS):
            assert torch.equal(run.weights.seen[name], bf16(master)), name


def test_the_idle_are_favoured(small_shape, nano_vocabulary):
    run = fresh(small_shape, nano_vocabulary, PLAN)
    load_ = torch.tensor([9, 1, 2, 4, 4, 4, 4, 4])
    balance(run.weights, {1: load_}, 0.5)
    bias = run.weights.seen[f"model.layers.1.{BIAS}"]
    assert torch.equal(torch.sign(bias), torch.sign(4.0 - load_.float()))
    assert skew(load_) == 9 / 4


def test_orthogonal_brings_singular_values_near_one():
    for shape in ((20, 30), (30, 20), (4, 16, 32)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.min() > 0.6
        assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(3, 16, 64), (1, 24, 24), (2, 32, 40)])
def test_both_ways_of_the_rounds_agree(shape):
    """Also for a matrix that is nearly of rank one, as momenta are."""
    x = torch.randn(shape) + 5 * torch.randn(*shape[:-1], 1) * torch.randn(shape[0], 1, shape[-1])
    x = x / x.flatten(-2).norm(dim=-1)[..., None, None]
    assert torch.allclose(muon.by_gram(x), muon.by_products(x), atol=2e-3)


@pytest.mark.parametrize(
    ("name", "shape", "parts"),
    [
        ("self_attn.q_b_proj.weight", (4 * 24, 48), lambda w: w.unflatten(0, (4, -1))),
        ("self_attn.kv_b_proj.weight", (4 * 32, 48), lambda w: w.unflatten(0, (4, -1))),
        (
            "self_attn.o_proj.weight",
            (64, 4 * 16),
            lambda w: w.unflatten(1, (4, -1)).transpose(0, 1),
        ),
        (
            "layers.1.mlp.experts.gate_up",
            (3, 2 * 16, 64),
            lambda w: w.unflatten(1, (2, -1)).flatten(0, 1),
        ),
        ("patch_embed.proj.weight", (32, 3, 4, 4), lambda w: w.flatten(1)[None]),
        ("q_a_proj.weight", (32, 64), lambda w: w[None]),
    ],
)
def test_each_part_of_a_matrix_moves_for_itself(name, shape, parts):
    """One that is a million times larger than the others moves no further and keeps none back."""
    momentum = torch.randn(shape)
    parts(momentum)[0].mul_(1e6)
    moved = muon.update(name, momentum, 4)
    assert moved.shape == momentum.shape
    sizes = parts(moved).square().mean((-1, -2)).sqrt()
    assert sizes.min() > 0.1
    assert sizes.max() < 0.3


def test_the_patch_embedding_moves_as_one_matrix():
    momentum = torch.randn(32, 3, 4, 4)
    moved = muon.update("patch_embed.proj.weight", momentum, 4)
    assert torch.equal(moved.flatten(1), muon.update("q_a_proj.weight", momentum.flatten(1), 4))


def test_the_schedule_warms_up_holds_and_ends_near_nothing_three_times():
    plan = Plan()
    factors = [plan.factor(n) for n in range(plan.steps)]
    assert factors[0] == 1 / 30
    assert set(factors[30 : plan.hold + 1]) == {1.0}
    for begin, end in ((plan.hold, FIRST), (FIRST, SECOND), (SECOND, LAST)):
        leg = factors[begin:end]
        assert sorted(leg, reverse=True) == leg
        assert 0 < leg[-1] < 0.001
    assert factors[FIRST:][:10] == factors[FORK:][:10]
    assert factors[SECOND] == pytest.approx(0.275, rel=0.02)
    half = next(n for n, factor in enumerate(factors) if n > plan.hold and factor <= 0.5)
    falls = [plan.batch(n) for n in range(plan.hold, FIRST) if plan.stage(n) not in HELD]
    before = [plan.batch(n) for n in range(plan.hold, half) if plan.stage(n) not in HELD]
    assert sum(before) == pytest.approx(sum(falls) / 2, rel=1e-3)
    for name in HELD:
        assert len({factors[n] for n in range(plan.steps) if plan.stage(n) == name}) == 1


def test_the_stages_follow_each_other():
    plan, begins = Plan(), [0]
    for _, steps, _ in STAGES:
        begins.append(begins[-1] + steps)
    names = [name for name, _, _ in STAGES]
    assert [plan.stage(n) for n in begins[:-1]] == names
    assert [plan.stage(n - 1) for n in begins[1:]] == names
    assert {*names} == {*mix.STAGES}
    assert {FORK, FIRST, SECOND, LAST} <= {*begins}
    assert plan.steps == LAST
    assert [plan.batch(n) for n in (0, 1700, plan.steps - 1)] == [2048, 4096, 6144]
    assert plan.left(plan.steps - 2) == 2 * 6144
    assert plan.left(100) == sum(plan.batch(n) for n in range(100, plan.steps))
    assert plan.left(plan.steps) == 0


def test_both_ends_draw_alike():
    plan = Plan()
    assert [plan.number(n) for n in range(FIRST)] == [*range(FIRST)]
    assert [plan.number(n) for n in range(FIRST, SECOND)] == [*range(FORK, FIRST)]
    assert [plan.number(n) for n in range(SECOND, LAST)] == [*range(SECOND, LAST)]


def test_evaluation_counts_what_greedy_decoding_would_get_right(
    small_shape, nano_vocabulary, renderer
):
    run = fresh(small_shape, nano_vocabulary, PLAN)
    graph = Graph(model_config(small_shape, nano_vocabulary))
    assert accuracy(graph, run.weights.seen, renderer, ["identity"], 5) == {"identity": 0.0}

    class Knowing:
        """A graph that knows the answers."""

        def __call__(self, p, batch):
            logits = torch.nn.functional.one_hot(batch.targets, 768).float()
            logits[batch.owners == 0, :5] += 2  # but for those of the first conversation
            return type("Output", (), {"logits": logits})

    assert accuracy(Knowing(), {}, renderer, ["identity"], 5)["identity"] == pytest.approx(0.8)
    rows = [renderer.row(s) for s in mix.held_out("identity", 2)]
    spent, ids = nats(graph, run.weights.seen, rows)["identity"]
    assert ids == sum(sum(w > 0 for w in row.weight) for row in rows)
    assert spent / ids == pytest.approx(math.log(768), rel=0.05)


def test_the_log_is_cut_where_a_run_resumes(
    small_shape, nano_vocabulary, renderer, crew, tmp_path, capsys
):
    run = fresh(small_shape, nano_vocabulary, PLAN)
    report = step(run, Graph(model_config(small_shape, nano_vocabulary)), renderer, crew)
    for number in (1, 2, 3):
        record(tmp_path, number, 1.0, report)
    forget(tmp_path, 2)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
    show(report, 2, 6, 1000.0, 60.0)
    assert "step     2/6" in capsys.readouterr().out
    plot(tmp_path)
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_the_vocabulary_is_learnt_as_it_ships_and_cuts_numbers_as_kimi_does(tmp_path):
    vocabulary = learnt(3072, Plan().seed)
    assert len(vocabulary.base) == 3072
    assert b" Paris" in vocabulary.base
    tokenizer = Tokenizer(vocabulary)
    assert [len(tokenizer.encode(str(n))) for n in range(1000)] == [1] * 1000
    assert [tokenizer.decode([one]) for one in tokenizer.encode("2048")] == ["204", "8"]
    digits = [t for t in vocabulary.base if any(48 <= byte < 58 for byte in t)]
    assert sorted(digits) == sorted({*map(str.encode, NUMBERS), *(b"%d" % n for n in range(10))})
    save_vocabulary(tmp_path, vocabulary)
    assert load_vocabulary(tmp_path) == vocabulary
    assert learnt(3072, Plan().seed) == vocabulary == Vocabulary.from_dir(KIMI_NANO)
