"""preprocessor_config.json: the published one, ours, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hybrid.config import ModelConfig
from hybrid.errors import CheckpointError, ConfigError
from hybrid.tiny.shape import MEDIA_LIMITS
from hybrid.vision.media_config import FILE, PUBLISHED, MediaConfig

ROOT = Path(__file__).parents[2]
CONFIG = json.loads((ROOT / "tests/data/kimi_k25_config.json").read_text())
VISION = ModelConfig.from_dict(CONFIG).vision


def read(directory, **changes):
    """The config of a file like the published one, but for some keys."""
    (directory / FILE).write_text(json.dumps({"media_proc_cfg": {**MEDIA_LIMITS, **changes}}))
    return MediaConfig.from_dir(directory, VISION)


def test_the_published_file_is_what_we_take_for_published(tmp_path):
    assert read(tmp_path) == PUBLISHED


def test_without_the_file_the_published_values_hold(tmp_path):
    assert MediaConfig.from_dir(tmp_path, VISION) == PUBLISHED


def test_every_value_is_read(tmp_path):
    changes = {
        "in_patch_limit": 1000,
        "image_mean": [0.25, 0, 1],
        "image_std": [0.5, 1, 2],
        "patch_limit_on_one_side": 64,
        "in_patch_limit_each_frame": 500,
        "in_patch_limit_video": 9000,
        "sample_fps": 1,
        "max_num_frames_each_video": 60,
        "temporal_merge_kernel_size": 2,
    }
    config = read(tmp_path, **changes)
    for key, value in changes.items():
        assert getattr(config, key) == (tuple(value) if isinstance(value, list) else value)
    assert type(config.sample_fps) is float


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("fixed_output_tokens", 64, "does not support"),
        ("timestamp_mode", "seconds", "supports only 'hh:mm:ss.fff'"),
        ("merge_kernel_size", 4, "supports only 2"),
        ("merge_kernel_size", None, "missing or null"),
        ("patch_size", 16, "config.json says 14"),
        ("temporal_merge_kernel_size", 5, "init_pos_emb_time"),
        ("temporal_merge_kernel_size", 1 << 40, "from 1 to 16"),
        ("in_patch_limit", 0, "from 1 to 65536"),
        ("in_patch_limit", 1 << 30, "from 1 to 65536"),
        ("in_patch_limit", 16384.0, "expected an integer"),
        ("in_patch_limit", None, "missing or null"),
        ("in_patch_limit_each_frame", True, "expected an integer"),
        ("in_patch_limit_video", 0, "from 1 to"),
        ("patch_limit_on_one_side", 513, "from 1 to 512"),
        ("max_num_frames_each_video", -1, "from 1 to"),
        ("sample_fps", 0, "from 0.001 to 1000"),
        ("sample_fps", "2", "expected a number"),
        ("image_mean", [0.5, 0.5], "three numbers"),
        ("image_mean", 0.5, "three numbers"),
        ("image_mean", [0.5, 0.5, None], "three numbers"),
        ("image_std", [0.5, 0, 0.5], "from 0.001 to 10"),
        ("image_std", [0.5, True, 0.5], "from 0.001 to 10"),
    ],
)
def test_a_value_is_refused_by_its_name(tmp_path, key, value, words):
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, **{key: value})
    line = str(refused.value)
    assert line.startswith(f"{FILE}: ")
    assert key in line
    assert words in line
    assert "\n" not in line


def test_large_patches_are_refused_where_an_image_would_take_gigabytes(tmp_path):
    (tmp_path / FILE).write_text(
        json.dumps({"media_proc_cfg": {**MEDIA_LIMITS, "patch_size": 200}})
    )
    with pytest.raises(ConfigError, match="more than 33554432 pixels"):
        MediaConfig.from_dir(tmp_path, replace(VISION, patch_size=200))


def test_many_large_frames_at_once_are_refused(tmp_path):
    changes = {"in_patch_limit_each_frame": 65536, "temporal_merge_kernel_size": 16}
    (tmp_path / FILE).write_text(json.dumps({"media_proc_cfg": {**MEDIA_LIMITS, **changes}}))
    with pytest.raises(ConfigError, match=r"in_patch_limit_each_frame .* with 16 at a time"):
        MediaConfig.from_dir(tmp_path, replace(VISION, init_pos_emb_time=16))


def test_published_values_are_refused_for_a_tower_with_other_patches(tmp_path):
    with pytest.raises(ConfigError, match=r"patch_size is 14 but config\.json says 16"):
        MediaConfig.from_dir(tmp_path, replace(VISION, patch_size=16))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"media_proc_cfg": 3}', '{"a": 1, "a": 2}', "{" * 100000, "\xff"]
)
def test_a_file_that_is_no_configuration_is_one_line(tmp_path, text):
    (tmp_path / FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=FILE) as refused:
        MediaConfig.from_dir(tmp_path, VISION)
    assert "\n" not in str(refused.value)


def test_a_huge_file_or_a_link_out_of_the_directory_is_not_read(tmp_path):
    (tmp_path / FILE).write_bytes(b" " * (2 << 20))
    with pytest.raises(CheckpointError, match="larger than"):
        MediaConfig.from_dir(tmp_path, VISION)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).symlink_to("/etc/hostname")
    with pytest.raises(CheckpointError, match="symlink"):
        MediaConfig.from_dir(tmp_path, VISION)
