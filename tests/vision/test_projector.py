"""Which patches become a token, and what the projector makes of them."""

import numpy as np
import pytest
import torch

from hybrid.vision.block import Affine
from hybrid.vision.projector import Projector, merged
from tests.reference import vision_tower as reference

GRIDS = [(1, 2, 2), (1, 6, 2), (1, 4, 130), (3, 6, 8), (4, 2, 4)]
UNIT = 2.0**-24


def patches(grid, size=3):
    return np.random.default_rng(1).standard_normal((int(np.prod(grid)), size)).astype(np.float32)


@pytest.mark.parametrize("grid", GRIDS)
def test_groups_are_the_references(grid):
    """A mean of t numbers is rounded t times: t * 2^-24 of the largest."""
    x = patches(grid)
    found = merged(torch.from_numpy(x), grid).numpy()
    expected = reference.merged(x.astype(np.float64), grid)
    assert found.shape == (grid[1] * grid[2] // 4, 4, x.shape[1])
    assert np.abs(found - expected).max() <= grid[0] * UNIT * np.abs(x).max()
    if grid[0] == 1:
        assert np.array_equal(found, expected.astype(np.float32))


def test_the_order_is_raster_and_upper_before_lower():
    numbers = torch.arange(4 * 6, dtype=torch.float32).unsqueeze(1)
    found = merged(numbers, (1, 4, 6))[..., 0].tolist()
    assert found == [
        [0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11],
        [12, 13, 18, 19], [14, 15, 20, 21], [16, 17, 22, 23],
    ]  # fmt: skip


def test_frames_are_averaged():
    x = torch.cat([torch.full((4, 1), value) for value in (1.0, 2.0, 6.0)])
    assert merged(x, (3, 2, 2)).flatten().tolist() == [3.0] * 4


def weights(size, hidden):
    rng = np.random.default_rng(2)
    shapes = {
        "pre_norm.weight": (size,), "pre_norm.bias": (size,),
        "proj.0.weight": (4 * size, 4 * size), "proj.0.bias": (4 * size,),
        "proj.2.weight": (hidden, 4 * size), "proj.2.bias": (hidden,),
    }  # fmt: skip
    return {
        f"mm_projector.{name}": rng.uniform(0.1, 0.5, shape).astype(np.float32)
        * rng.choice([-1, 1], shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def expected(arrays, groups, eps, gelu):
    normed = reference.norm(arrays, "mm_projector.pre_norm", groups.astype(np.float64), eps)
    hidden = reference.linear(arrays, "mm_projector.proj.0", normed.reshape(len(groups), -1))
    hidden = gelu(torch.from_numpy(hidden)).numpy()
    return reference.linear(arrays, "mm_projector.proj.2", hidden)


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_the_projector_is_the_references(eps):
    """Two linears of 4 * 6 terms below 0.5 * 4 and a norm: 60 roundings at the largest output."""
    arrays = weights(6, 10)
    projector = Projector.read(lambda name: torch.from_numpy(arrays[name]), eps)
    groups = 0.1 * patches((1, 8, 8), 6).reshape(-1, 4, 6)
    found = projector.projected(torch.from_numpy(groups)).numpy()
    exact = torch.nn.functional.gelu
    right = expected(arrays, groups, eps, exact)
    bound = 60 * UNIT * np.abs(right).max()
    assert np.abs(found - right).max() <= bound

    def tanh(x):
        return exact(x, approximate="tanh")

    for wrong in (expected(arrays, groups, eps, tanh), expected(arrays, groups, eps / 2, exact)):
        assert np.abs(found - wrong).max() > 10 * bound


def test_weights_keep_their_places():
    names = []
    Projector.read(lambda name: names.append(name) or torch.zeros(1), 1e-5)
    assert [name for name in names if name.endswith("weight")] == [
        "mm_projector.pre_norm.weight", "mm_projector.proj.0.weight", "mm_projector.proj.2.weight",
    ]  # fmt: skip
    one = Affine(torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16))
    assert one.to(torch.float32).bias.dtype == torch.float32
