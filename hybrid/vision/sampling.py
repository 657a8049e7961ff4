"""Which frames of a video the model sees, and what time each chunk of them is said to show.

    source    0 1 2 ... 16 ... 33 ... 50 ... 66 ... 82 ... 99     100 frames at 30 a second
    sampled   0         16     33     50   | 66     82     99     two a second, first and last kept
    chunks    00:00:00.000                 | 00:00:02.200         four frames, then what is left

Pure arithmetic (spec §6.2): what a file says about itself comes in as a Clip.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hybrid.vision.media_config import MediaConfig

Frames = Generator[Image.Image | None]  # one for each source frame: a picture where wanted


@dataclass(frozen=True, slots=True)
class Clip:
    """What is known of a video before its frames are read."""

    frames: int
    fps: float  # on average over the whole of it
    width: int  # in pixels, upright
    height: int

    @property
    def seconds(self) -> float:
        """How long it runs."""
        return self.frames / self.fps


def sampled_frames(clip: Clip, config: MediaConfig) -> int:
    """Tell how many frames are sampled: `sample_fps` a second, never more than there are."""
    fps = min(config.sample_fps, clip.fps)
    count = max(round(clip.frames * fps / clip.fps), 1)  # half to even
    return min(count, config.max_num_frames_each_video or count)


def sampled_indices(frames: int, count: int) -> tuple[int, ...]:
    """Spread `count` indices evenly over `frames`, the first and the last among them.

    Rounded half to even. No index comes twice as long as count <= frames.
    """
    return tuple(np.linspace(0, frames - 1, count).round().astype(int).tolist())  # [count]


def chunked(indices: Sequence[int], config: MediaConfig) -> list[tuple[int, ...]]:
    """Cut into chunks of `temporal_merge_kernel_size`; the last is not filled up."""
    size = config.temporal_merge_kernel_size
    return [tuple(indices[at : at + size]) for at in range(0, len(indices), size)]


def chunk_count(sampled: int, config: MediaConfig) -> int:
    """Tell how many chunks that many sampled frames make."""
    return -(-sampled // config.temporal_merge_kernel_size)


def stamp(index: int, fps: float) -> str:
    """Time of a source frame as HH:MM:SS.mmm, as the model was trained to read it.

    Milliseconds are truncated from the float quotient: frame 29 at 25 a second is 1.16 s, whose
    fraction is 0.1599..., so 00:00:01.159. Seconds are truncated too; a reader that rounds them
    to a microsecond first, as datetime does, is one second ahead on 6.9999999 s.
    """
    seconds = index / fps
    whole = int(seconds)
    return (
        f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{_milliseconds(seconds):03d}"
    )


def _milliseconds(seconds: float) -> int:
    return int(seconds % 1 * 1000)


def frame_limit(sampled: int, config: MediaConfig) -> int:
    """Limit on the patches of one frame, where `sampled` frames share the limit of a video."""
    each = config.in_patch_limit_each_frame
    if config.in_patch_limit_video is None:
        return each
    return max(1, min(round(config.in_patch_limit_video / sampled), each))
