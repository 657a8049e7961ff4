"""From an upright RGB picture to patches: resize, pad, cut.

    picture -> bicubic to (width, height) -> zeros at right and bottom -> one row for each patch

             x ->                 row of a patch: 196 of red, 196 of green, 196 of blue,
      +----+----+----+            each 14 lines of 14
    y | 0  | 1  | 2  |
    | +----+----+----+            Patches are in raster order. The tower, not we, gathers
    v | 3  | 4  | 5  |            2 x 2 of them to a token.
      +----+----+----+

Padding comes before normalisation, so a padded value is -mean/std (spec §6.1).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hybrid.vision.bicubic import THREADS, resized
from hybrid.vision.media import Item
from hybrid.vision.media_config import MediaConfig
from hybrid.vision.resize import Fit

U8 = NDArray[np.uint8]

BAND = 16  # rows of patches that a thread cuts at a time


def patches(picture: Image.Image, fitted: Fit, config: MediaConfig) -> U8:
    """Return uint8 [grid_h * grid_w, 3 * patch * patch] of an upright RGB picture."""
    patch, pixels = config.patch_size, resized(picture, fitted.width, fitted.height)
    out = np.empty((fitted.grid_h, fitted.grid_w, 3, patch, patch), np.uint8)  # [h, w, c, y, x]

    def cut(first: int) -> None:
        rows = out[first : first + BAND]
        padded = np.zeros((len(rows), patch, fitted.grid_w, patch, 3), np.uint8)
        part = pixels[first * patch : (first + len(rows)) * patch]
        lines = padded.reshape(-1, fitted.grid_w * patch, 3)  # [h * y, w * x, c]
        lines[: len(part), : fitted.width] = part
        rows[:] = padded.transpose(0, 2, 4, 1, 3)

    bands = range(0, fitted.grid_h, BAND)
    if len(bands) == 1:
        cut(0)
    else:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(cut, bands))
    return out.reshape(-1, 3 * patch * patch)


def item_of(frames: Sequence[U8], fitted: Fit) -> Item:
    """Return what the tower sees at once, of the patches of one picture or of a chunk's frames."""
    grid = (len(frames), fitted.grid_h, fitted.grid_w)
    return Item(np.concatenate(frames) if len(frames) > 1 else frames[0], grid)


def normalised(patches: U8, config: MediaConfig) -> NDArray[np.float32]:
    """Return (v / 255 - mean) / std, each step rounded to float32, of [N, 3 * patch * patch]."""
    mean, std = (np.array([v], np.float32).T for v in (config.image_mean, config.image_std))
    table = (np.arange(256, dtype=np.float32) / np.float32(255) - mean) / std  # [3, 256]
    planes = patches.reshape(len(patches), 3, -1)  # [N, 3, patch * patch]
    out = np.empty(planes.shape, np.float32)
    for channel in range(3):
        out[:, channel] = table[channel][planes[:, channel]]
    return out.reshape(patches.shape)
