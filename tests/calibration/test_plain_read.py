"""Each node's threads read that node's memory, all of it, once."""

import numpy as np
import pytest

from hybrid.calibration.plain_read import STREAMS, UNIT, Team, read_target
from hybrid.cpu_experts.arena import allocate
from hybrid.cpu_experts.cores import Seat

SEATS = [Seat(0, None), Seat(1, None), Seat(1, None)]


@pytest.fixture
def memories():
    rng = np.random.default_rng(0)
    arrays = [allocate(units * UNIT + 77) for units in (3, 2)]
    for array in arrays:
        array[:] = rng.integers(0, 256, array.size, np.uint8)
    return arrays


@pytest.fixture
def team():
    team = Team(SEATS)
    yield team
    team.close()


def folded(memory):
    """The xor of all 32-byte pieces of the whole units."""
    whole = memory[: memory.size // UNIT * UNIT]
    return np.bitwise_xor.reduce(whole.reshape(-1, 32))


def read_by(team, node):
    own = [sink for sink, seat in zip(team._sinks, team.seats, strict=True) if seat.node == node]
    return np.bitwise_xor.reduce([sink[:32] for sink in own])


@pytest.mark.parametrize("streams", [1, STREAMS])
def test_every_unit_of_every_node_is_read_once(team, memories, streams):
    nbytes, seconds = team.read_nodes(memories, streams)
    assert nbytes == 5 * UNIT
    assert seconds > 0
    for node, memory in enumerate(memories):
        assert (read_by(team, node) == folded(memory)).all()
    memories[1][5] ^= 1  # planted: one other bit
    assert (read_by(team, 1) != folded(memories[1])).any()


def test_the_target_is_one_that_this_machine_runs():
    assert read_target().triple
