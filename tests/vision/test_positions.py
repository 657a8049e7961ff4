"""Position table, waves and rotations against the published vectors and the reference.

A resampled value is a sum of 16 products of a weight, which is itself a short polynomial, and a
value of the table: 32 roundings of 2^-24 of the sum of their sizes, which is below 4 (two factors
of 1.5 at most in the sum of the kernel's absolute weights) times the largest value. Where it is
read along an axis is rounded twice, to 2^-24 of the axis; a kernel's slopes sum up to 4.2, times
the other axis's 1.5.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional

from hybrid.vision import positions
from tests.reference import vision_tower as reference

UNIT = 2.0**-24
RESAMPLING = 32 * 4 * UNIT  # times the largest value of the table
SHIFTING = 2 * 4.2 * 1.5 * UNIT  # times the largest value and rows + columns of the table
GRIDS = [(2, 2), (6, 2), (4, 130), (66, 70), (8, 7), (1, 1)]
FREQUENCIES = [1, 0.59948425, 0.359381366, 0.215443469, 0.129154967, 0.0774263683]  # spec §3.6
LAST_FREQUENCY = 0.000166810054


def random_table(rows, columns, size=5):
    rng = np.random.default_rng(3)
    return rng.uniform(0.5, 1, (rows, columns, size)).astype(np.float32) * rng.choice(
        [-1, 1], (rows, columns, size)
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([0, 1, 4, 9], [-0.0868056, 0.21875, 1.4305550, 3.1527777, 6.7812500, 9.4340286]),
        ([0, 1, 4, 9, 16, 25, 36, 49], [0.5960647, 12.125, 38.8206024]),
    ],
)
@pytest.mark.parametrize("down", [False, True])
def test_the_published_lines(line, expected, down):
    """Given to seven decimals (spec §3.6); along rows and along columns."""
    weight = torch.tensor(line, dtype=torch.float32)
    shape, grid = ((-1, 1, 1), (len(expected), 1)) if down else ((1, -1, 1), (1, len(expected)))
    found = positions.table(weight.reshape(shape), *grid)
    assert found.shape == (len(expected), 1)
    assert np.abs(found[:, 0].numpy() - expected).max() < 1e-7 + (
        RESAMPLING + SHIFTING * len(line)
    ) * max(line)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("stored", [(8, 8), (64, 64), (5, 7)])
def test_a_table_is_resampled_as_the_reference_does(stored, grid):
    weight = random_table(*stored)
    found = positions.table(torch.from_numpy(weight), *grid).numpy()
    expected = reference.resampled(weight.astype(np.float64), *grid).reshape(len(found), -1)
    assert np.abs(found - expected).max() <= RESAMPLING + SHIFTING * sum(stored)


@pytest.mark.parametrize("grid", [(6, 2), (4, 130)])
def test_an_antialiased_table_is_seen(grid):
    weight = random_table(8, 8)
    planes = torch.from_numpy(weight).permute(2, 0, 1)[None]
    wrong = functional.interpolate(
        planes, grid, mode="bicubic", align_corners=False, antialias=True
    )
    right = reference.resampled(weight.astype(np.float64), *grid)
    assert np.abs(wrong[0].permute(1, 2, 0).numpy() - right).max() > 100 * (
        RESAMPLING + SHIFTING * 16
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_table_of_the_right_size_is_copied(dtype):
    weight = torch.from_numpy(random_table(64, 64)).to(dtype)
    found = positions.table(weight, 64, 64)
    assert found.dtype == torch.float32
    assert torch.equal(found, weight.float().flatten(0, 1))
    # Its own size by way of resampling would be the same numbers up to rounding only; one patch
    # more is another table.
    assert not torch.equal(positions.table(weight, 64, 66)[:64], found[:64])


@pytest.mark.parametrize(("t", "size"), [(2, 1152), (4, 48), (4, 1152)])
def test_waves_are_sines_then_cosines(t, size):
    found = positions.temporal(t, size).numpy()
    assert np.abs(found - reference.waves(t, size)).max() <= UNIT  # one rounding of at most 1
    half = size // 2
    assert (found[0, :half] == 0).all()
    assert (found[0, half:] == 1).all()
    assert found[1, 0] == np.float32(np.sin(1))
    swapped = np.roll(reference.waves(t, size), half, axis=1)
    assert np.abs(found - swapped).max() > 0.5


def angles(rotation):
    return torch.angle(rotation).numpy()


def test_the_published_frequencies():
    """Given to nine digits (spec §3.6)."""
    row = angles(positions.rotary(2, 2, 72)[1])  # the patch at row 0, column 1
    assert row[0:12:2] == pytest.approx(FREQUENCIES, rel=1e-7)
    assert row[34] == pytest.approx(LAST_FREQUENCY, rel=1e-7)
    assert (row[1::2] == 0).all()
    column = angles(positions.rotary(2, 2, 72)[2])  # row 1, column 0
    assert (column[1::2] == row[0::2]).all()
    assert (column[0::2] == 0).all()


@pytest.mark.parametrize(("h", "w", "size"), [(2, 6, 12), (66, 70, 12), (4, 512, 72)])
def test_a_turn_is_the_references(h, w, size):
    """Five roundings of values below 2: two of the rotation, two products, a sum."""
    x = np.random.default_rng(5).uniform(-1, 1, (h * w, size)).astype(np.float32)
    found = positions.turned(torch.from_numpy(x), positions.rotary(h, w, size)).numpy()
    expected = reference.turned(x.astype(np.float64), reference.turns(h, w, size))
    bound = 5 * 2 * UNIT
    assert np.abs(found - expected).max() <= bound
    rows_first = reference.turns(h, w, size).reshape(h * w, -1, 2)[:, :, ::-1].reshape(h * w, -1)
    assert np.abs(found - reference.turned(x.astype(np.float64), rows_first)).max() > 1e3 * bound
    halves = x.reshape(h * w, 2, -1).swapaxes(1, 2).reshape(h * w, -1)
    assert np.abs(found - reference.turned(halves, reference.turns(h, w, size))).max() > 1e3 * bound


def test_a_turn_is_done_in_float32_and_rounded_once():
    x = torch.randn(2 * 70, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    rotation = positions.rotary(2, 70, 12)
    found = positions.turned(x, rotation)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, positions.turned(x.float(), rotation).bfloat16())
