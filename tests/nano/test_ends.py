"""The ends of a run: each begins where the trunk stops, the last leg from the mean of both."""

from dataclasses import replace

import pytest
import torch

from hybrid.errors import CheckpointError
from nano.model.forward import Graph
from nano.model.parameters import initial
from nano.model.shape import model_config
from nano.training import ends
from nano.training.crew import Crew
from nano.training.ends import mean, turn
from nano.training.loop import step
from nano.training.masters import Masters, rounded
from nano.training.optimiser import Optimiser
from nano.training.schedule import FIRST, FORK, LAST, SECOND, Plan
from nano.training.state import Run, load, save

PLAN = Plan(tokens=300, micro=512, warm_up=2)


@pytest.fixture
def crew():
    crew = Crew(2)
    yield crew
    crew.close()


@pytest.fixture
def run(small_shape, nano_vocabulary):
    """A run whose next step is the last one of the trunk."""
    master = initial(model_config(small_shape, nano_vocabulary), nano_vocabulary, 0)
    optimiser = Optimiser.of(small_shape.num_attention_heads, master)
    return Run(PLAN, small_shape, Masters.of(master), optimiser, FORK - 1)


@pytest.fixture
def further(small_shape, nano_vocabulary, renderer, crew, tmp_path):
    """Train to a step, of which the first is taken and the rest are left out."""
    graph = Graph(model_config(small_shape, nano_vocabulary))

    def train(run, to):
        step(run, graph, renderer, crew)
        run.step = to
        return turn(tmp_path, run)

    return train


def same_bits(one, other):
    return all(
        torch.equal(tensor, mine[name])
        for mine, its in (
            (one.weights.master, other.weights.master),
            (one.weights.seen, other.weights.seen),
            (one.optimiser.first, other.optimiser.first),
            (one.optimiser.second, other.optimiser.second),
        )
        for name, tensor in its.items()
    )


def test_the_second_end_begins_where_the_first_began(run, further, tmp_path):
    fork = further(run, FORK)
    assert fork is run
    kept = load(tmp_path, "fork.pt")
    assert same_bits(kept, fork)
    second = further(fork, FIRST)
    assert second.step == FIRST
    assert same_bits(second, kept)
    assert second.optimiser.count == kept.optimiser.count
    first = load(tmp_path, "first.pt")
    assert not same_bits(first, kept)


def test_the_last_leg_begins_from_the_mean(run, further, tmp_path):
    second = further(further(run, FORK), FIRST)
    trained = further(second, SECOND - 1)
    joined = further(trained, SECOND)
    first = load(tmp_path, "first.pt")
    assert joined.step == SECOND
    assert not same_bits(joined, first)
    for name, tensor in joined.weights.master.items():
        one, other = first.weights.master[name], trained.weights.master[name]
        assert torch.equal(tensor, (one + other) / 2), name
        assert torch.equal(joined.weights.seen[name], rounded(name, tensor)), name


def test_steps_between_change_nothing(run, tmp_path):
    for number in (1, FORK - 1, FORK + 1, FIRST + 1, SECOND - 1, SECOND + 1, LAST):
        run.step = number
        assert turn(tmp_path, run) is run
    assert not [*tmp_path.iterdir()]


def test_a_run_broken_off_behind_a_turn_does_not_turn_again(run, further, tmp_path):
    second = further(further(run, FORK), FIRST)
    save(tmp_path, second)
    first = (tmp_path / "first.pt").read_bytes()
    resumed = further(load(tmp_path), FIRST + 1)
    straight = further(second, FIRST + 1)
    assert same_bits(resumed, straight)
    assert (tmp_path / "first.pt").read_bytes() == first


def test_a_run_without_its_fork_says_so(run, tmp_path):
    run.step = FIRST
    with pytest.raises(CheckpointError, match=r"fork\.pt is missing"):
        turn(tmp_path, run)


def test_a_mean_of_a_run_with_itself_is_that_run(run):
    assert same_bits(mean(run, replace(run)), run)


def test_a_fork_that_was_not_kept_would_be_seen(run, further, tmp_path, monkeypatch):
    monkeypatch.setattr(ends, "_kept", lambda directory, name: run)
    second = further(further(run, FORK), FIRST)
    assert not same_bits(second, load(tmp_path, "fork.pt"))
