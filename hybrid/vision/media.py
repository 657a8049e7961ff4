"""What preprocessing hands to the tower: patches on grids, and what to call them in a prompt.

board.jpg        Media(kind "image")  one item,   grid (1, 56, 74), 1036 tokens
a clip of 6 s    Media(kind "video")  three items, grid (4, 50, 86) each, with time stamps
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MERGE = 2  # the tower merges 2 x 2 patches into one token (config.py accepts nothing else)


@dataclass(frozen=True)
class Item:
    """What the tower sees at once: one image, or up to four frames of a video."""

    patches: NDArray[np.uint8]  # [t * h * w, 3 * patch * patch]: raster order, each (c, y, x)
    grid: tuple[int, int, int]  # t frames of h x w patches; h and w even

    @property
    def tokens(self) -> int:
        """Tokens that it takes in the prompt: frames are averaged (spec §3.6)."""
        return self.grid[1] // MERGE * (self.grid[2] // MERGE)

    @cached_property  # a conversation asks again at every turn
    def digest(self) -> bytes:
        """What tells it from any other item: 32 bytes of SHA-256 over grid and patches."""
        head = np.asarray(self.grid, np.int64).tobytes()
        return hashlib.sha256(head + self.patches.tobytes()).digest()


@dataclass(frozen=True, slots=True)
class Media:
    """One image or video of a message, ready for the tower."""

    kind: Literal["image", "video"]
    name: str  # what the user called it; for people only
    width: int  # of the source in pixels, upright
    height: int
    items: tuple[Item, ...]  # an image has one, a video one for each chunk of frames
    stamps: tuple[str, ...] = ()  # of each chunk of a video, HH:MM:SS.mmm
    seconds: float = 0.0  # of a video

    @property
    def tokens(self) -> int:
        """Tokens of all its items; the words around them not counted."""
        return sum(item.tokens for item in self.items)
