"""The plots show what the rows say, and nothing that a row does not have."""

import re

import numpy as np
import pytest

from cli import bench_plot
from tests.cli.test_bench_table import HEAD, ROW, TIER

DISK = ROW["tiers"] | {"nvme": TIER | {"gb_s": 2.0, "peak_gb_s": 4.0, "bytes_per_token": 3e6}}


@pytest.fixture
def drawn(tmp_path):
    """Texts of the files, by name."""

    def draw(rows, picks=None, head=HEAD):
        paths = bench_plot.draw(tmp_path, head, rows, picks or {})
        assert sorted(paths) == sorted(tmp_path.iterdir())
        return {path.stem: path.read_text() for path in paths}

    return draw


def words(svg):
    return re.findall(r">([^<>]*[A-Za-z][^<>]*)</text>", svg)


def test_without_tiers_or_picks_there_is_speed_alone(drawn):
    bare = ROW | {"tiers": dict.fromkeys(("vram", "ram", "nvme"), TIER)}
    assert drawn([bare]).keys() == {"speed"}


def test_lines_and_bars_are_named(drawn):
    deep = ROW | {"test": "tg128 @ d9", "n_depth": 9, "predicted_ts": 11.0, "stddev_ts": None}
    prompt = ROW | {"test": "pp512", "n_prompt": 512, "n_gen": 0, "tiers": DISK}
    files = drawn([ROW, deep, prompt], {"tg128 rotating": np.ones((3, 8), np.int64)})
    assert files.keys() == {"speed", "bandwidth", "traffic", "experts"}
    assert {"tg128 rotating", "pp512 rotating", "predicted"} <= set(words(files["speed"]))
    assert words(files["speed"]).count("predicted") == 1
    assert "pp512 rotating: read from disk" in words(files["bandwidth"])
    assert "read from disk" in words(files["traffic"])
    assert "tg128 rotating" in words(files["experts"])


def test_the_same_rows_draw_the_same_file(drawn):
    assert drawn([ROW]) == drawn([ROW])


def test_experts_nobody_picked_are_not_drawn(drawn):
    assert "experts" not in drawn([ROW], {"tg1 cold": np.zeros((2, 8), np.int64)})


@pytest.mark.parametrize("name", ["a$b$", "<svg>", "\x1b[31mx", r"$\frac$"])
def test_a_name_is_no_markup(drawn, name):
    svg = drawn([ROW], head=HEAD | {"model": HEAD["model"] | {"name": name}})["speed"]
    assert "\x1b" not in svg
    assert "on A CPU" in " ".join(words(svg))
