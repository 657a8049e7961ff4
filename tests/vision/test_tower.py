"""Tower and projector against float64 and against transformers, and each known mistake caught.

The bound: a feature is the end of a chain of sums, eight a block (two norms, q and k, scores,
values, wo, fc0, fc1) and seven around the blocks (patches, position, two norms, mean, two linears).
None has more than 588 terms, each rounded at 2^-24 of about the sum's size. If all add up as random
signs do: sqrt(sums * 588) * 2^-24 times the largest feature. The faults were 8 bounds and more when
this was written, the right numbers a tenth of one.
"""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend

from hybrid.checkpoint import Checkpoint
from hybrid.checkpoint.expected import expected_tensors
from hybrid.config import ModelConfig
from hybrid.gpu_attention.weights import WeightReader
from hybrid.progress import ignore
from hybrid.vision import block, positions, projector, tower
from hybrid.vision.media import Item
from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.patches import normalised
from hybrid.vision.pieces import Crew
from hybrid.vision.tower import Tower
from tests.reference import vision_tower as reference

UNIT = 2.0**-24
GRIDS = [
    (1, 2, 2), (1, 6, 2), (1, 4, 6), (1, 16, 16), (1, 18, 34), (1, 4, 130),
    (2, 2, 4), (3, 6, 4), (4, 8, 10),
]  # fmt: skip
LARGE = (1, 66, 70)  # patches beyond the published table, and 32 pieces
PREFIXES = ("vision_tower.", "mm_projector.")
PARTS = ("weight", "bias")
FINAL = "vision_tower.encoder.final_layernorm"


def bound(blocks: int, largest: float) -> float:
    return np.sqrt((8 * blocks + 7) * 588) * UNIT * largest


@dataclass(frozen=True, slots=True)
class Stored:  # stands in for a WeightReader
    """A tiny checkpoint's vision weights: under their names, and as a reader hands them out."""

    config: ModelConfig
    tensors: dict[str, torch.Tensor]  # bf16

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def __call__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {name: tensor.float().numpy() for name, tensor in self.tensors.items()}

    def tower(self, threads: int = 1, compute: torch.dtype = torch.float32) -> Tower:
        vision, hidden = self.config.vision, self.config.text.hidden_size
        return Tower(vision, PUBLISHED, hidden, self, compute, threads)

    def expected(self, item: Item) -> np.ndarray:
        pixels = normalised(item.patches, PUBLISHED).astype(np.float64)
        vision = self.config.vision
        return reference.features(
            self.arrays, pixels, item.grid, vision.vt_num_attention_heads,
            projector_eps=vision.projector_ln_eps,
        )  # fmt: skip

    def bound(self, expected: np.ndarray) -> float:
        return bound(self.config.vision.vt_num_hidden_layers, np.abs(expected).max())


def plain(tiny_dir) -> Stored:
    """The tiny checkpoint as it is."""
    config = ModelConfig.from_dir(tiny_dir)
    with Checkpoint.open(tiny_dir, config) as checkpoint:
        reader = WeightReader(checkpoint, torch.device("cpu"), torch.bfloat16, 1, ignore)
        names = [name for name in checkpoint if name.startswith(PREFIXES)]
        return Stored(config, {name: reader(name) for name in names})


@pytest.fixture(scope="module")
def stored(tiny_dir) -> Stored:
    """The tiny checkpoint, except that the final norm leaves so little that an eps shows."""
    found = plain(tiny_dir)
    small = {f"{FINAL}.{part}": found.tensors[f"{FINAL}.{part}"] / 128 for part in PARTS}  # exact
    return replace(found, tensors=found.tensors | small)


def item(*grid: int, seed: int = 0) -> Item:
    values = np.random.default_rng([seed, *grid]).integers(0, 256, (int(np.prod(grid)), 588))
    return Item(values.astype(np.uint8), grid)


def error(stored: Stored, one: Item) -> float:
    """Distance from the reference, in bounds."""
    found, expected = stored.tower().features([one])[0], stored.expected(one)
    assert found.dtype == np.float32
    assert found.shape == (one.tokens, stored.config.text.hidden_size)
    assert expected.std() > 0.5, "flat features would hide every error"
    return float(np.abs(found - expected).max() / stored.bound(expected))


@pytest.mark.parametrize("grid", GRIDS)
def test_features_are_the_references(stored, grid):
    assert error(stored, item(*grid)) < 1


@pytest.mark.parametrize("grid", [(1, 6, 10), (1, 10, 8), (4, 4, 6)])
def test_heads_of_the_published_size(stored, grid):
    """72 wide, a hidden size that is no multiple of 16, a table that is not square."""
    vision = replace(
        stored.config.vision, vt_hidden_size=144, vt_num_attention_heads=2,
        vt_intermediate_size=538, init_pos_emb_height=10, init_pos_emb_width=8,
    )  # fmt: skip
    config = replace(stored.config, vision=vision)
    wanted = (want for want in expected_tensors(config) if want.name.startswith(PREFIXES))
    rng = np.random.default_rng(9)
    tensors = {}
    for want in wanted:
        scale = 1.5 / np.sqrt(np.prod(want.shape[1:])) if len(want.shape) > 1 else 0.2
        scale = 0.5 if "pos_emb" in want.name else scale
        centre = 1.0 if "norm" in want.name and want.name.endswith("weight") else 0.0
        values = rng.normal(centre, scale, want.shape)
        tensors[want.name] = torch.from_numpy(values).bfloat16()
    assert error(Stored(config, tensors), item(*grid)) < 1


def swap_gelus(monkeypatch):
    gelu = torch.nn.functional.gelu
    swap = {"none": "tanh", "tanh": "none"}
    monkeypatch.setattr(
        torch.nn.functional,
        "gelu",
        lambda x, approximate="none": gelu(x, approximate=swap[approximate]),
    )


def tanh_in_projector(monkeypatch):
    gelu = torch.nn.functional.gelu
    monkeypatch.setattr(
        torch.nn.functional, "gelu", lambda x, approximate="tanh": gelu(x, approximate="tanh")
    )


def erf_in_blocks(monkeypatch):
    gelu = torch.nn.functional.gelu
    monkeypatch.setattr(torch.nn.functional, "gelu", lambda x, approximate="none": gelu(x))


def rows_before_columns(monkeypatch):
    rotary = positions.rotary
    monkeypatch.setattr(
        positions,
        "rotary",
        lambda h, w, size: rotary(h, w, size).unflatten(1, (-1, 2)).flip(2).flatten(1),
    )


def half_split(monkeypatch):
    turned = block.turned

    def wrong(x, rotation):
        paired = x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)
        back = turned(paired, rotation).unflatten(-1, (-1, 2)).transpose(-1, -2)
        return back.flatten(-2)

    monkeypatch.setattr(block, "turned", wrong)


def antialiased(monkeypatch):
    interpolate = torch.nn.functional.interpolate
    monkeypatch.setattr(
        torch.nn.functional,
        "interpolate",
        lambda *args, **options: interpolate(*args, **options, antialias=True),
    )


def aligned_corners(monkeypatch):
    interpolate = torch.nn.functional.interpolate
    monkeypatch.setattr(
        torch.nn.functional,
        "interpolate",
        lambda *args, **options: interpolate(*args, **(options | {"align_corners": True})),
    )


def time_in_an_image(monkeypatch):
    placed = Tower._placed

    def wrong(self, one, embed, workers):
        rows = placed(self, one, embed, workers)
        if one.grid[0] == 1:
            rows += positions.temporal(1, rows.shape[1])
        return rows

    monkeypatch.setattr(Tower, "_placed", wrong)


def no_time(monkeypatch):
    monkeypatch.setattr(positions, "temporal", lambda t, size: torch.zeros(t, size))


def cosines_first(monkeypatch):
    temporal = positions.temporal
    monkeypatch.setattr(
        positions, "temporal", lambda t, size: temporal(t, size).roll(size // 2, dims=1)
    )


def frames_apart(monkeypatch):
    """Each frame attends to itself alone."""
    attend = tower._attend
    monkeypatch.setattr(
        tower,
        "_attend",
        lambda q, k, v, workers: [
            attend(*(part.chunk(4, dim=1)[frame] for part in (q, k, v)), workers)
            for frame in range(4)
        ],
    )


def another_scale(monkeypatch):
    attention = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda q, k, v: attention(q, k, v, scale=(q.shape[-1] - 1) ** -0.5),
    )


def heads_mixed_up(monkeypatch):
    """q, k and v of one head lie together instead of all q, all k, all v."""
    projected = block.Block.projected
    monkeypatch.setattr(
        block.Block,
        "projected",
        lambda self, x, rotation: (
            projected(self, x, rotation).flatten(1, 2).unflatten(1, (-1, 3)).transpose(1, 2)
        ),
    )


def merge_by_columns(monkeypatch):
    merged = projector.merged
    monkeypatch.setattr(tower, "merged", lambda x, grid: merged(x, grid)[:, [0, 2, 1, 3]])


def blocks_of_four(monkeypatch):
    """Takes patches for lying in 2 x 2 blocks already."""
    monkeypatch.setattr(
        tower,
        "merged",
        lambda x, grid: x.unflatten(0, (grid[0], -1)).mean(0).unflatten(0, (-1, 4)),
    )


def first_frame_only(monkeypatch):
    merged = projector.merged
    monkeypatch.setattr(
        tower, "merged", lambda x, grid: merged(x[: grid[1] * grid[2]], (1, *grid[1:]))
    )


def eps_of_projector(monkeypatch):
    read = projector.Projector.read
    monkeypatch.setattr(projector.Projector, "read", lambda reader, eps: read(reader, 0.9 * eps))


def eps_of_blocks(monkeypatch):
    norm = block.Affine.norm
    monkeypatch.setattr(block.Affine, "norm", lambda self, x, eps=1e-3: norm(self, x, eps))


IMAGE, FILM = (1, 20, 18), (4, 6, 4)
ANYWHERE = [
    swap_gelus, tanh_in_projector, erf_in_blocks, rows_before_columns, half_split, antialiased,
    aligned_corners, another_scale, heads_mixed_up, merge_by_columns, blocks_of_four,
    eps_of_projector, eps_of_blocks,
]  # fmt: skip
FAULTS = [
    *((fault, grid) for fault in ANYWHERE for grid in (IMAGE, FILM)),
    (time_in_an_image, IMAGE),
    *((fault, FILM) for fault in (no_time, cosines_first, frames_apart, first_frame_only)),
]


@pytest.mark.parametrize(("fault", "grid"), FAULTS)
def test_a_planted_fault_is_seen(stored, fault, grid, monkeypatch):
    fault(monkeypatch)
    assert error(stored, item(*grid)) > 5


ITEMS = [(1, 16, 18), (4, 2, 4), (1, 2, 2), (1, 18, 34), (2, 8, 6)]


def test_neighbours_in_a_pass_change_no_bit(stored):
    items = [item(*grid) for grid in ITEMS]
    together = stored.tower().features(items)
    for one, found in zip(items, together, strict=True):
        assert np.array_equal(found, stored.tower().features([one])[0])
    backwards = stored.tower().features(items[::-1])[::-1]
    assert all(np.array_equal(*pair) for pair in zip(together, backwards, strict=True))


@contextmanager
def one_for_all(device, threads, poll):
    yield Crew(None, whole=True, poll=poll)


def worst(stored, found, items, unit=1.0) -> float:
    """Largest distance from the reference, in bounds times `unit`."""
    pairs = zip(found, map(stored.expected, items), strict=True)
    return max(float(np.abs(a - b).max() / stored.bound(b)) for a, b in pairs) / unit


def test_the_gpus_way_agrees(stored, monkeypatch):
    """All items in the linears together, attention apart."""
    monkeypatch.setattr(tower, "crew", one_for_all)
    items = [item(*grid) for grid in ITEMS]
    assert worst(stored, stored.tower().features(items), items) < 1


def test_items_that_see_each_other_are_seen(stored, monkeypatch):
    monkeypatch.setattr(tower, "crew", one_for_all)
    advance = tower._advance
    monkeypatch.setattr(
        tower,
        "_advance",
        lambda group, *rest: advance(replace(group, grids=[(1, 1, len(group.x))]), *rest),
    )
    items = [item(*grid) for grid in ITEMS]
    assert worst(stored, stored.tower().features(items), items) > 10


def test_bf16_activations_differ_by_their_rounding(stored, monkeypatch):
    """One rounding at 2^-9 for each sum of the bound, where float32 has 588 at 2^-24."""
    monkeypatch.setattr(tower, "crew", one_for_all)
    items = [item(*grid) for grid in ITEMS]
    found = stored.tower(compute=torch.bfloat16).features(items)
    assert all(rows.dtype == np.float32 for rows in found)
    off = worst(stored, found, items, unit=2.0**-9 / (np.sqrt(588) * UNIT))
    assert 0.01 < off < 1


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(stored, threads):
    items = [item(*LARGE), item(1, 16, 18)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        several = stored.tower(threads).features(items)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    alone = stored.tower(1).features(items)
    assert all(np.array_equal(*pair) for pair in zip(several, alone, strict=True))
    assert len(Crew(None, whole=False, poll=print).pieces(len(items[0].patches))) > 2 * threads


def test_a_last_bit_is_seen(stored):
    """What the equalities above rest on: one weight off by its last bit shows."""
    name = "vision_tower.encoder.blocks.0.wo.weight"
    touched = stored.tensors[name].clone()
    touched.view(torch.int16)[0, 0] ^= 1
    other = replace(stored, tensors=stored.tensors | {name: touched})
    one = item(1, 16, 18)
    assert not np.array_equal(other.tower().features([one])[0], stored.tower().features([one])[0])


class StopNowError(Exception):
    pass


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("calls", [1, 20, 60])
def test_poll_abandons_a_pass(stored, threads, calls):
    seen = []

    def poll():
        seen.append(None)
        if len(seen) == calls:
            raise StopNowError

    before, active = torch.get_num_threads(), threading.active_count()
    with pytest.raises(StopNowError):
        stored.tower(threads).features([item(*LARGE)], poll)
    assert len(seen) == calls
    assert torch.get_num_threads() == before
    assert threading.active_count() == active


def test_poll_comes_before_every_block(stored, monkeypatch):
    order = []
    advance = tower._advance
    monkeypatch.setattr(tower, "_advance", lambda *given: order.append("block") or advance(*given))
    stored.tower().features([item(1, 2, 2)], lambda: order.append("poll"))
    places = [index for index, what in enumerate(order) if what == "block"]
    assert len(places) == stored.config.vision.vt_num_hidden_layers
    assert all(order[place - 1] == "poll" for place in places)


def test_nothing_in_nothing_out(stored):
    assert stored.tower().features([]) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_are_never_held_all_at_once(dtype, monkeypatch):
    """Torch takes its flash kernel for what we pass, and would not for what it cannot do."""
    attention, given = torch.nn.functional.scaled_dot_product_attention, []
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda q, k, v: given.append((q, k, v)) or attention(q, k, v),
    )
    q, k, v = torch.randn(3, 2, 40, 72, dtype=dtype)
    block.attend(q[:1, 8:16], k[:1], v[:1])
    choice = torch._fused_sdp_choice
    assert choice(*given[0]) == SDPBackend.FLASH_ATTENTION.value
    assert choice(given[0][0], given[0][1], v[None, :1, :, :60]) == SDPBackend.MATH.value


@pytest.mark.oracle
@pytest.mark.parametrize("grid", [*GRIDS, (1, 66, 6), pytest.param(LARGE, marks=pytest.mark.slow)])
def test_features_are_transformers(grid, oracle, tiny_dir):
    """Its tower and projector in float32, on its own conversion of the weights' names.

    Its angles are products in float32 of positions and frequencies: off by up to 2^-24 of the
    position, where ours are rounded once; each of the blocks' q and k takes that in.
    """
    model = oracle("k2.5").model.model
    one = item(*grid)
    pixels = torch.from_numpy(normalised(one.patches, PUBLISHED)).unflatten(1, (3, 14, 14))
    with torch.inference_mode():
        pooled = model.vision_tower(pixels, grid_thw=torch.tensor([grid])).pooler_output
        expected = model.mm_projector(pooled).squeeze(1).numpy()
    found = plain(tiny_dir).tower().features([one])[0]
    blocks, largest = 2, np.abs(expected).max()
    angles = 2 * 2 * blocks * max(grid) * UNIT * largest
    assert np.abs(found - expected).max() <= 2 * bound(blocks, largest) + angles


@pytest.mark.oracle
@pytest.mark.parametrize("t", [1, 3])
def test_several_items_are_transformers(t, oracle, tiny_dir):
    """In one call of its tower, which takes items of equal t only (spec §3.7)."""
    model = oracle("k2.5").model.model
    items = [item(t, 6, 8), item(t, 18, 4), item(t, 2, 10)]
    patches = np.concatenate([normalised(one.patches, PUBLISHED) for one in items])
    grids = torch.tensor([one.grid for one in items])
    with torch.inference_mode():
        pixels = torch.from_numpy(patches).unflatten(1, (3, 14, 14))
        pooled = model.vision_tower(pixels, grid_thw=grids).pooler_output
        expected = model.mm_projector(pooled).squeeze(1).numpy()
    found = np.concatenate(plain(tiny_dir).tower().features(items))
    largest = np.abs(expected).max()
    assert np.abs(found - expected).max() <= 2 * bound(2, largest) + 2 * 2 * 2 * 18 * UNIT * largest
