"""How large a picture or frame becomes, and on which grid of patches it then lies (spec §6.1).

    1280 x 720, at most 4096 patches  ->  1202 x 676 pixels, padded to 86 x 50 patches of 14 x 14

A picture is never enlarged. The right and lower edges are padded to whole 2 x 2 patches, which can
take the grid a little over the limit: to 4464 tokens for an image, 1338 for a frame.
"""

import math
from dataclasses import dataclass

from hybrid.vision.media import MERGE
from hybrid.vision.media_config import MediaConfig


@dataclass(frozen=True, slots=True)
class Fit:
    """The size of a picture before padding, in pixels, and its grid after it, in patches."""

    width: int
    height: int
    grid_h: int
    grid_w: int

    @property
    def tokens(self) -> int:
        """Tokens that an image or a chunk of frames of this grid takes."""
        return self.grid_h // MERGE * (self.grid_w // MERGE)


def fit(width: int, height: int, limit: int, config: MediaConfig) -> Fit:
    """Return what becomes of a picture of `width` x `height` pixels under a limit in patches."""
    patch, side = config.patch_size, config.patch_limit_on_one_side * config.patch_size
    whole = max(1, width // patch) * max(1, height // patch)
    scale = min(1.0, math.sqrt(limit / whole), side / width, side / height)
    new_width, new_height = (min(max(1, int(n * scale)), side) for n in (width, height))
    return Fit(new_width, new_height, _grid(new_height, patch), _grid(new_width, patch))


def _grid(pixels: int, patch: int) -> int:
    """Patches along one side after padding to whole groups of MERGE."""
    return -(-pixels // (MERGE * patch)) * MERGE
