"""The ends of a run: each begins where the trunk stops, the last leg from the mean of both."""

from argparse import Namespace
from dataclasses import replace

import pytest
import torch

from hybrid.errors import CheckpointError
from nano import train
from nano.model.forward import Graph
from nano.model.shape import model_config
from nano.training import ends
from nano.training.ends import FIRST_STATE, FORK_STATE, mean, turn
from nano.training.loop import rows_of, step
from nano.training.masters import rounded
from nano.training.schedule import FIRST, FORK, LAST, SECOND, Plan
from nano.training.state import load
from tests.nano.runs import fresh, same_bits, same_weights

PLAN = Plan(tokens=300, micro=512, warm_up=2)


@pytest.fixture
def run(small_shape, nano_vocabulary):
    """A run whose next step is the last one of the trunk."""
    return fresh(small_shape, nano_vocabulary, PLAN, FORK - 1)


@pytest.fixture
def graph(small_shape, nano_vocabulary):
    return Graph(model_config(small_shape, nano_vocabulary))


@pytest.fixture
def further(graph, renderer, crew, tmp_path):
    """Train to a step, of which the first is taken and the rest are left out."""

    def train(run, to):
        step(run, graph, renderer, crew)
        run.step = to
        return turn(tmp_path, run)

    return train


def test_the_second_end_begins_where_the_first_began(run, further, tmp_path):
    fork = further(run, FORK)
    assert fork is run
    kept = load(tmp_path, FORK_STATE)
    assert same_bits(kept, fork)
    second = further(fork, FIRST)
    assert second.step == FIRST
    assert same_bits(second, kept)
    assert not same_weights(load(tmp_path, FIRST_STATE), kept)


def test_the_last_leg_begins_from_the_mean(run, further, tmp_path):
    second = further(further(run, FORK), FIRST)
    trained = further(second, SECOND - 1)
    joined = further(trained, SECOND)
    first = load(tmp_path, FIRST_STATE)
    assert joined.step == SECOND
    assert joined.optimiser.count == trained.optimiser.count
    assert not same_weights(first, trained)
    for of in (
        lambda run: run.weights.master,
        lambda run: run.optimiser.first,
        lambda run: run.optimiser.second,
    ):
        for name, tensor in of(joined).items():
            assert torch.equal(tensor, (of(first)[name] + of(trained)[name]) / 2), name
    for name, tensor in joined.weights.master.items():
        assert torch.equal(joined.weights.seen[name], rounded(name, tensor)), name


def test_steps_between_change_nothing(run, tmp_path):
    for number in (1, FORK - 1, FORK + 1, FIRST + 1, SECOND - 1, SECOND + 1, LAST):
        run.step = number
        assert turn(tmp_path, run) is run
    assert not [*tmp_path.iterdir()]


def test_a_run_without_its_fork_says_so(run, tmp_path):
    run.step = FIRST
    with pytest.raises(CheckpointError, match=r"fork\.pt is missing"):
        turn(tmp_path, run)


def test_a_mean_of_a_run_with_itself_is_that_run(run):
    assert same_bits(mean(run, replace(run)), run)


def test_both_ends_read_the_same_where_their_odds_are_the_same(run, renderer):
    """They begin with the same stage."""
    ids = []
    for run.step in (FORK, FIRST):
        assert run.plan.stage(run.step) == "spelling"
        ids.append([row.ids for row in rows_of(run, renderer)])
    assert ids[0] == ids[1]


def test_a_run_that_stops_at_every_step_turns_as_one_that_does_not(
    small_shape, nano_vocabulary, graph, renderer, crew, tmp_path, monkeypatch
):
    for name, number in (("FORK", 1), ("FIRST", 3), ("SECOND", 5)):
        monkeypatch.setattr(ends, name, number)

    def trained(run, out, steps):
        out.mkdir(exist_ok=True)
        run.plan = replace(PLAN, steps=steps)
        args = Namespace(out=out, minutes=float("inf"), save_minutes=float("inf"))
        return train._train(run, graph, renderer, crew, args)

    straight = trained(fresh(small_shape, nano_vocabulary, PLAN), tmp_path / "straight", 6)
    halting = fresh(small_shape, nano_vocabulary, PLAN)
    for steps in range(1, 7):
        trained(halting, tmp_path / "halting", steps)
        halting = load(tmp_path / "halting")
    assert same_bits(halting, straight)
    assert straight.optimiser.count == 4  # the trunk's, the second end's and the last leg's
