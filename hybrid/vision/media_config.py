"""How images and frames are prepared: `preprocessor_config.json` read once, checked, frozen.

    {"media_proc_cfg": {"in_patch_limit": 16384, "patch_size": 14, ...}, "auto_map": ..., ...}

Field names are those of the file. A checkpoint without it gets the published values (spec §6).
What the runtime does not implement is refused by name. The file is foreign: every limit has a
bound, so that no file can make one picture or one chunk of frames larger than some 100 MB.
"""

from dataclasses import dataclass
from pathlib import Path

from hybrid.config import VisionConfig
from hybrid.config_section import Section
from hybrid.errors import ConfigError
from hybrid.model_files import list_model_files, parse_json_object, read_model_file

FILE = "preprocessor_config.json"
MAX_FILE_BYTES = 1 << 20
MAX_PATCHES = 1 << 16  # of one image or frame; published 16384 and 4096
MAX_SIDE = 512  # patches; the tower's rotary table ends there in the reference (spec §3.6)
MAX_PIXELS = 1 << 25  # patches of one item times their area; published 3.2 million
MAX_FRAMES = 16  # of one chunk; published 4

Floats = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaConfig:
    """media_proc_cfg (spec §6). Limits in patches, means and deviations for values of 0 to 1."""

    in_patch_limit: int
    patch_size: int
    image_mean: Floats
    image_std: Floats
    merge_kernel_size: int
    patch_limit_on_one_side: int
    in_patch_limit_each_frame: int
    in_patch_limit_video: int | None
    sample_fps: float
    max_num_frames_each_video: int | None
    temporal_merge_kernel_size: int

    @classmethod
    def from_dir(cls, model_dir: Path, vision: VisionConfig) -> "MediaConfig":
        """Read the file of a model directory, or take PUBLISHED where there is none.

        Raises ConfigError for a value that is wrong, not implemented, or at odds with `vision`;
        CheckpointError for a file that cannot be read.
        """
        if FILE not in list_model_files(model_dir):
            return _agreeing(PUBLISHED, vision)
        data = read_model_file(model_dir, FILE, MAX_FILE_BYTES)
        top = Section(parse_json_object(data, FILE, ConfigError), file=FILE)
        return _agreeing(_media(top.section("media_proc_cfg")), vision)


PUBLISHED = MediaConfig(
    in_patch_limit=16384,
    patch_size=14,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
    merge_kernel_size=2,
    patch_limit_on_one_side=512,
    in_patch_limit_each_frame=4096,
    in_patch_limit_video=None,
    sample_fps=2.0,
    max_num_frames_each_video=None,
    temporal_merge_kernel_size=4,
)
"""What K2.5 and K2.6 publish."""


def _media(media: Section) -> MediaConfig:
    media.absent("fixed_output_tokens")
    media.only("timestamp_mode", "hh:mm:ss.fff")
    media.exactly("merge_kernel_size", 2)
    config = MediaConfig(
        in_patch_limit=media.integer("in_patch_limit", 1, MAX_PATCHES),
        patch_size=media.integer("patch_size", 1, 256),
        image_mean=_floats(media, "image_mean", -10, 10),
        image_std=_floats(media, "image_std", 1e-3, 10),
        merge_kernel_size=2,
        patch_limit_on_one_side=media.integer("patch_limit_on_one_side", 1, MAX_SIDE),
        in_patch_limit_each_frame=media.integer("in_patch_limit_each_frame", 1, MAX_PATCHES),
        in_patch_limit_video=_optional(media, "in_patch_limit_video", 1 << 24),
        sample_fps=media.real("sample_fps", 1e-3, 1e3),
        max_num_frames_each_video=_optional(media, "max_num_frames_each_video", 1 << 20),
        temporal_merge_kernel_size=media.integer("temporal_merge_kernel_size", 1, MAX_FRAMES),
    )
    frames = {"in_patch_limit": 1, "in_patch_limit_each_frame": config.temporal_merge_kernel_size}
    for key, count in frames.items():
        if getattr(config, key) * count * config.patch_size**2 > MAX_PIXELS:
            raise media.refuse(
                key,
                f"with {count} at a time and patch_size {config.patch_size} "
                f"more than {MAX_PIXELS} pixels",
            )
    return config


def _floats(media: Section, key: str, low: float, high: float) -> Floats:
    values = media.values.get(key)
    if not isinstance(values, list) or len(values) != 3:
        raise media.refuse(key, "expected three numbers, for red, green and blue")
    each = Section({str(i): value for i, value in enumerate(values)})
    try:
        red, green, blue = (each.real(str(i), low, high) for i in range(3))
    except ConfigError:
        raise media.refuse(key, f"expected three numbers from {low:g} to {high:g}") from None
    return red, green, blue


def _optional(media: Section, key: str, high: int) -> int | None:
    return media.integer(key, 1, high) if media.has(key) else None


def _agreeing(config: MediaConfig, vision: VisionConfig) -> MediaConfig:
    """`config`, unless the tower was built for something else."""
    for key, seen, limit in (
        ("patch_size", config.patch_size, vision.patch_size),
        ("merge_kernel_size", config.merge_kernel_size, vision.merge_kernel_size[0]),
    ):
        if seen != limit:
            raise ConfigError(f"{FILE}: {key} is {seen} but config.json says {limit}")
    if config.temporal_merge_kernel_size > vision.init_pos_emb_time:
        raise ConfigError(
            f"{FILE}: temporal_merge_kernel_size is {config.temporal_merge_kernel_size}; "
            f"init_pos_emb_time of config.json allows {vision.init_pos_emb_time}"
        )
    return config
