"""From PIL pictures to what the tower reads, in a few slow and obvious lines (spec §6.1).

For pictures that need no resizing: PIL alone says what resampled pixels are.
"""

import numpy as np

PATCH = 14


def grid_of(frames, width, height):
    """(t, h, w) in patches: sides are padded to whole 2 x 2 blocks of patches."""
    return frames, *(-(-side // (2 * PATCH)) * 2 for side in (height, width))


def normalised_patches(pictures, grid):
    """[t * h * w, 3, 14, 14] float32 in raster order, padded with black on the right and below."""
    _, h, w = grid
    patches = []
    for picture in pictures:
        pixels = np.asarray(picture, np.float32)
        canvas = np.zeros((h * PATCH, w * PATCH, 3), np.float32)
        canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
        canvas = (canvas / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
        for row in range(h):
            for column in range(w):
                top, left = row * PATCH, column * PATCH
                patch = canvas[top : top + PATCH, left : left + PATCH]
                patches.append(patch.transpose(2, 0, 1))
    return np.stack(patches)
