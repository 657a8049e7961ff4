"""What an image costs: preprocessing of a photo, and MoonViT-3D at full size on this CPU.

    python bench/vision.py [--grids 16x16,32x32,56x74] [--threads N] [--rounds N] [--json FILE]

The tower has K2.5's sizes (27 blocks, 1152 wide, projector to 7168) and random weights in bf16, as
a checkpoint has them. Its yardstick is a large float32 product in torch with as many threads, taken
just before each grid in every round. Rounds go through all steps in turn and the first does not
count; figures are medians, shares are of the same round's product.
"""

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from dense import LAYER
from environment import environment
from PIL import Image

from hybrid.benchmark.noise import cores_of_others, usage
from hybrid.checkpoint.expected import expected_tensors
from hybrid.config import ModelConfig, VisionConfig
from hybrid.cpu_experts.cores import available_cores
from hybrid.vision.image import image_media
from hybrid.vision.media import Item
from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.patches import patches
from hybrid.vision.picture import open_picture
from hybrid.vision.resize import fit
from hybrid.vision.tower import Tower

FULL = VisionConfig(
    patch_size=14, init_pos_emb_height=64, init_pos_emb_width=64, init_pos_emb_time=4,
    vt_hidden_size=1152, vt_intermediate_size=4304, vt_num_hidden_layers=27,
    vt_num_attention_heads=16, merge_kernel_size=(2, 2), projector_ln_eps=1e-5,
)  # fmt: skip
HIDDEN = 7168
COMPONENTS = ("vision", "projector")  # of a checkpoint
PHOTO = (4000, 3000)  # pixels
SQUARE = 2048  # of the product that everything is measured against

Grid = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class TowerRow:
    """One grid: medians over the rounds."""

    grid: str
    patches: int
    tokens: int
    seconds: float
    s_per_1000: float  # patches
    gflop_s: float
    ceiling: float  # of the product alone, GFLOP/s
    of_ceiling: float


def flops(vision: VisionConfig, hidden: int, grid: Grid) -> int:
    """Multiplications and additions of the matrix products of one item, attention included."""
    size, inner = vision.vt_hidden_size, vision.vt_intermediate_size
    count = grid[0] * grid[1] * grid[2]
    tokens, merged = grid[1] * grid[2] // 4, 4 * size
    linear = count * size * (4 * size + 2 * inner)
    attention = 2 * count * count * size
    embedding = count * 3 * vision.patch_size**2 * size
    projector = tokens * merged * (merged + hidden)
    return 2 * (vision.vt_num_hidden_layers * (linear + attention) + embedding + projector)


def tower_row(grid: Grid, samples: list[tuple[float, float]]) -> TowerRow:
    """Summarise rounds of (seconds of the tower, FLOP/s of the product before it)."""
    work, count = flops(FULL, HIDDEN, grid), grid[0] * grid[1] * grid[2]
    seconds = statistics.median(s for s, _ in samples)
    return TowerRow(
        grid="x".join(map(str, grid)),
        patches=count,
        tokens=grid[1] * grid[2] // 4,
        seconds=round(seconds, 3),
        s_per_1000=round(1000 * seconds / count, 3),
        gflop_s=round(work / seconds / 1e9, 1),
        ceiling=round(statistics.median(c for _, c in samples) / 1e9, 1),
        of_ceiling=round(statistics.median(work / s / c for s, c in samples), 3),
    )


def parse_grid(text: str) -> Grid:
    """Read HxW or TxHxW; h and w must be even."""
    sides = [int(side) for side in text.split("x")]
    if len(sides) == 2:
        sides = [1, *sides]
    if len(sides) != 3 or min(sides) < 1 or sides[1] % 2 or sides[2] % 2:
        raise argparse.ArgumentTypeError(f"grid is {text!r}; give HxW or TxHxW with H and W even")
    return sides[0], sides[1], sides[2]


class RandomWeights:
    """Stands in for a WeightReader: random tensors of the right shape, made as they are asked."""

    device = torch.device("cpu")

    def __init__(self, vision: VisionConfig, hidden: int) -> None:
        config = ModelConfig(
            architecture="", text=replace(LAYER, hidden_size=hidden, num_hidden_layers=1),
            vision=vision, quantization=None, media_placeholder_token_id=None,
        )  # fmt: skip
        wanted = (want for want in expected_tensors(config) if want.component in COMPONENTS)
        self.shapes = {want.name: want.shape for want in wanted}
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, name: str, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """Numbers that keep activations near 1: norms are ones, biases small."""
        shape = self.shapes[name]
        if "norm" in name and name.endswith("weight"):
            return torch.ones(shape, dtype=dtype)
        scale = 0.1 if len(shape) == 1 else 1.7 / float(np.prod(shape[1:])) ** 0.5
        return torch.empty(shape).uniform_(-scale, scale, generator=self.generator).to(dtype)


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ceiling(threads: int) -> float:
    """FLOP/s of a square float32 product in torch; the best of three."""
    torch.set_num_threads(threads)
    a = torch.rand(SQUARE, SQUARE)
    return 2 * SQUARE**3 / min(seconds(lambda: a @ a) for _ in range(3))


def item(grid: Grid) -> Item:
    """Random patches."""
    count = grid[0] * grid[1] * grid[2]
    values = np.random.default_rng(0).integers(0, 256, (count, 3 * FULL.patch_size**2), np.uint8)
    return Item(values, grid)


def tower_rows(grids: list[Grid], threads: int, rounds: int) -> list[TowerRow]:
    """Interleaved rounds of every grid and its yardstick."""
    tower = Tower(FULL, PUBLISHED, HIDDEN, RandomWeights(FULL, HIDDEN), torch.float32, threads)
    items = [item(grid) for grid in grids]
    tower.features(items[:1])  # warms up
    samples: dict[Grid, list[tuple[float, float]]] = {grid: [] for grid in grids}
    for number in range(rounds):
        for grid, one in zip(grids, items, strict=True):
            before = ceiling(threads)
            samples[grid].append((seconds(lambda one=one: tower.features([one])), before))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return [tower_row(grid, samples[grid]) for grid in grids]


def photo(width: int, height: int) -> bytes:
    """A JPEG file with edges, slopes and grain, as a camera's has."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = np.sin(x / 37) * np.cos(y / 53) + np.sin((x + y) / 400) + ((x // 97 + y // 61) % 2)
    values = 90 + 40 * waves[..., None] + rng.normal(0, 6, (height, width, 3)).astype(np.float32)
    out = io.BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def photo_ms(data: bytes, rounds: int) -> dict[str, float]:
    """Milliseconds from a file to patches and their digest, in all and by step; medians."""
    taken: dict[str, list[float]] = {}

    def step(name: str, work: Callable[[], object]) -> object:
        began = time.perf_counter()
        result = work()
        taken.setdefault(name, []).append(1e3 * (time.perf_counter() - began))
        return result

    for _ in range(rounds + 1):
        step("all", lambda: image_media(data, PUBLISHED).items[0].digest)
        picture = step("decode", lambda: open_picture(data, "photo"))
        fitted = fit(*picture.size, PUBLISHED.in_patch_limit, PUBLISHED)
        rows = step("resize, cut", lambda p=picture, f=fitted: patches(p, f, PUBLISHED))
        one = Item(rows, (1, fitted.grid_h, fitted.grid_w))
        step("digest", lambda item=one: item.digest)
    return {name: round(statistics.median(times[1:]), 1) for name, times in taken.items()}


def table(rows: list[dict[str, object]]) -> Iterator[str]:
    """Lines of dictionaries with equal keys."""
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    yield "  ".join(key.rjust(width) for key, width in widths.items())
    for row in rows:
        yield "  ".join(str(row[key]).rjust(width) for key, width in widths.items())


def main() -> None:
    """Measure, print tables, end with JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--grids", type=lambda text: [parse_grid(one) for one in text.split(",")],
        default="16x16,32x32,56x74", help="patches, HxW or TxHxW")  # fmt: skip
    add("--threads", type=int, default=available_cores())
    add("--rounds", type=int, default=3)
    add("--json", type=Path, help="where the JSON lines go instead of standard output")
    options = parser.parse_args()
    head = {"bench": "vision", "environment": environment() | {"torch": version("torch")}}
    head |= {"threads": options.threads, "rounds": options.rounds}
    start = usage()
    data = photo(*PHOTO)
    steps = {"megapixels": 12, "file_mb": round(len(data) / 1e6, 1), **photo_ms(data, 9)}
    found = [asdict(row) for row in tower_rows(options.grids, options.threads, options.rounds)]
    head["machine_use"] = cores_of_others(start, usage())
    print("a photo, from file to patches: ms", *table([steps]), sep="\n")
    print("\nthe tower, K2.5's size", *table(found), sep="\n")
    lines = [head, {"photo": steps}, *({"tower": row} for row in found)]
    text = "\n".join(json.dumps(line) for line in lines)
    if options.json:
        options.json.write_text(text + "\n")
    else:
        print(f"\n{text}")


if __name__ == "__main__":
    main()
