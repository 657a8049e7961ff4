"""From the bytes of a video to Media: probe, sample, refuse what does not fit, then read.

    bytes -> Clip -> indices, size of a frame, tokens -> frames -> patches -> an Item for each chunk
                     refused here if too long

Each sampled frame is cut to patches at once, so that one picture is held at a time (spec §6.2).
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from PIL import Image

from hybrid.errors import RequestError
from hybrid.model_files import shown
from hybrid.vision import animation, container
from hybrid.vision.media import Item, Media
from hybrid.vision.media_config import MediaConfig
from hybrid.vision.patches import U8, item_of, patches
from hybrid.vision.resize import Fit, fit
from hybrid.vision.sampling import (
    Clip,
    chunk_count,
    chunked,
    frame_limit,
    sampled_frames,
    sampled_indices,
    stamp,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be read of a clip."""

    clip: Clip
    indices: tuple[int, ...]  # of source frames, ascending
    fitted: Fit  # of every frame


def video_media(source: bytes, config: MediaConfig, max_tokens: int, name: str = "video") -> Media:
    """Read a video file or an animation; raises RequestError in one line.

    It may take at most `max_tokens`, words around its chunks not counted.
    """
    reader = animation if animation.animation_format(source) else container
    clip = reader.probe(source, name)
    for _ in range(2):  # again where the file shows fewer frames than it counts
        plan = planned(clip, config, max_tokens, name)
        with closing(reader.frames(source, set(plan.indices), name)) as frames:
            items, seen = _read(frames, plan, config)
        if sum(item.grid[0] for item in items) == len(plan.indices):
            return _media(plan, items, config, name)
        clip = replace(clip, frames=seen)
    raise RequestError(
        f"{shown(name)} shows another number of frames at each reading", param="messages"
    )


def planned(clip: Clip, config: MediaConfig, max_tokens: int, name: str) -> Plan:
    """Choose frames and their size; raises RequestError where they take too many tokens."""
    sampled = sampled_frames(clip, config)
    fitted = fit(clip.width, clip.height, frame_limit(sampled, config), config)
    tokens = chunk_count(sampled, config) * fitted.tokens
    if tokens > max_tokens:
        raise RequestError(
            f"{shown(name)} ({clip.seconds:,.1f} s) takes {tokens:,} tokens, {max_tokens:,} are "
            "left: cut it, make its picture smaller, or load the model with a larger kv_tokens",
            param="messages",
        )
    return Plan(clip, sampled_indices(clip.frames, sampled), fitted)


def _read(
    frames: Iterator[Image.Image | None], plan: Plan, config: MediaConfig
) -> tuple[list[Item], int]:
    """Gather the pictures among the frames to chunks; also tell how many frames there were."""
    items: list[Item] = []
    rows: list[U8] = []
    taken = seen = 0
    for picture in frames:
        seen += 1
        if picture is None:
            continue
        taken += 1
        rows.append(patches(picture, plan.fitted, config))  # [grid_h * grid_w, 3 * patch^2]
        if len(rows) == config.temporal_merge_kernel_size or taken == len(plan.indices):
            items.append(item_of(rows, plan.fitted))
            rows.clear()
        if taken == len(plan.indices):
            break
    return items, seen


def _media(plan: Plan, items: list[Item], config: MediaConfig, name: str) -> Media:
    chunks = chunked(plan.indices, config)
    return Media(
        kind="video",
        name=name,
        width=plan.clip.width,
        height=plan.clip.height,
        items=tuple(items),
        stamps=tuple(stamp(chunk[0], plan.clip.fps) for chunk in chunks),
        seconds=plan.clip.seconds,
    )
