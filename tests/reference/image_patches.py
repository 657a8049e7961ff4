"""From a picture to the values the tower reads: one obvious step after the other, in float64.

PIL resamples, along x and then along y: two calls, since its version 13 chooses the order of one
call itself. All else is said again here in loops over pixels.
"""

import math

import numpy as np
from PIL import Image

PATCH = 14
SIDE = 512


def resized(width: int, height: int, limit: int) -> tuple[int, int]:
    """Width and height before padding (spec §6.1)."""
    scale = 1.0
    patches = max(1, width // PATCH) * max(1, height // PATCH)
    scale = min(scale, math.sqrt(limit / patches))
    scale = min(scale, SIDE * PATCH / width)
    scale = min(scale, SIDE * PATCH / height)
    new = [math.floor(size * scale) for size in (width, height)]
    return tuple(min(max(size, 1), SIDE * PATCH) for size in new)


def canvas(picture: Image.Image, limit: int) -> np.ndarray:
    """Bytes [height, width, 3] after resizing and padding to multiples of 28."""
    width, height = resized(*picture.size, limit)
    across = picture.resize((width, picture.height), Image.Resampling.BICUBIC)
    pixels = np.asarray(across.resize((width, height), Image.Resampling.BICUBIC))
    while width % 28:
        width += 1
    while height % 28:
        height += 1
    padded = np.zeros((height, width, 3), np.uint8)
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            padded[y, x] = pixels[y, x]
    return padded


def cut(padded: np.ndarray) -> np.ndarray:
    """[patches, 3, 14, 14] in raster order."""
    patches = []
    for top in range(0, padded.shape[0], PATCH):
        for left in range(0, padded.shape[1], PATCH):
            patch = padded[top : top + PATCH, left : left + PATCH]
            patches.append([patch[:, :, channel] for channel in range(3)])
    return np.array(patches)


def values(picture: Image.Image, limit: int) -> np.ndarray:
    """What the tower reads, exactly: float64 [patches, 3, 14, 14]."""
    return (cut(canvas(picture, limit)) / 255 - 0.5) / 0.5
