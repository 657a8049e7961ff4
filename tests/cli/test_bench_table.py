"""Tables that no model's name can break, whatever reads them."""

import csv
import io

import pytest

from cli import bench_compare, bench_table
from hybrid.benchmark import Compared, Comparison

HEAD = {
    "environment": {"cpu": "A CPU", "commit": "abc", "load_average": 0.5},
    "model": {"name": "tiny", "bytes": 595 * 2**30, "parameters": 1_030_000_000_000},
    "options": {
        "device": "cpu",
        "threads": 2,
        "isa": "avx2",
        "activation": "int8",
        "backbone_weights": "bf16",
    },
}
TIER = {"share": 0.0, "bytes_per_token": 0.0, "gb_s": None, "peak_gb_s": None, "of_peak": None}
ROW = {
    "test": "tg128",
    "kind": "rotating",
    "n_prompt": 0,
    "n_gen": 128,
    "n_depth": 0,
    "avg_ts": 12.345,
    "stddev_ts": 0.5,
    "median_ts": 12.4,
    "predicted_ts": None,
    "error": None,
    "tiers": {"vram": TIER, "ram": TIER | {"share": 1.0, "gb_s": 20.0}, "nvme": TIER},
    "distinct_experts_per_step": 8.0,
    "promotions_per_token": 0.0,
    "stalled_s_per_token": 0.001,
    "seconds_per_token": {"head": 0.01},
    "output_hash": "0123456789abcdef",
}


def named(name):
    return HEAD | {"model": HEAD["model"] | {"name": name}}


def cells(text, row=2):
    return [cell.strip() for cell in text.splitlines()[row].strip("|").split(" | ")]


def test_a_plain_table():
    text = bench_table.markdown(HEAD, [ROW])
    assert cells(text) == [
        "tiny", "595.00 GiB", "1.03 T", "CPU + avx2 int8", "2", "tg128", "12.35 ± 0.50", "12.40",
        "20.0", "01234567",
    ]  # fmt: skip
    assert text.splitlines()[-1] == "A CPU · load 0.5 · commit abc"


def test_columns_come_with_what_they_are_for():
    disk = ROW["tiers"] | {"nvme": TIER | {"share": 0.25, "gb_s": 2.0, "of_peak": 0.5}}
    rows = [ROW, ROW | {"kind": "warm", "predicted_ts": 15.0, "tiers": disk, "stddev_ts": None}]
    text = bench_table.markdown(HEAD, rows)
    heading, plain, rich = (cells(text, row) for row in (0, 2, 3))
    assert dict(zip(heading, rich, strict=True)) | {
        "prompts": "warm", "predicted": "15.00", "t/s": "12.35", "disk GB/s": "2.0 (50%)",
        "hits ram": "100.0%", "stall": "1.00 ms/t",
    } == dict(zip(heading, rich, strict=True))  # fmt: skip
    assert dict(zip(heading, plain, strict=True))["predicted"] == ""


@pytest.mark.parametrize(
    "name", ["a|b", "a\nb", "[x](http://y)", "\x1b[31mred", "`x`", "<b>", "a\\", "\x9b2J"]
)
def test_a_name_stays_in_its_cell(name):
    text = bench_table.markdown(named(name), [ROW])
    assert len(text.splitlines()) == len(bench_table.markdown(HEAD, [ROW]).splitlines())
    assert len(cells(text)) == len(cells(text, 0))
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert not any(mark in cells(text)[0].replace(f"\\{mark}", "") for mark in "|[]<>`")


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", 'a,"b"', "a\nb", "=cmd|' /C calc'!A0"])
def test_a_name_stays_text_in_a_spreadsheet(name):
    (row,) = csv.DictReader(io.StringIO(bench_table.csv_text(named(name), [ROW])))
    assert row["model"].lstrip("'") == name
    assert not row["model"].startswith(("=", "+", "-", "@"))
    assert float(row["error"] or 0) == 0
    assert row["head_s"] == "0.01"


def test_numbers_below_zero_stay_numbers():
    (row,) = csv.DictReader(io.StringIO(bench_table.csv_text(HEAD, [ROW | {"error": -0.2}])))
    assert row["error"] == "-0.2"


def comparison(**changes):
    values = {
        "test": "tg128", "kind": "rotating", "samples": (5, 5), "medians": (10.0, 11.0),
        "ratio": 1.1, "low": 1.05, "high": 1.15, "same_output": True,
    }  # fmt: skip
    return Comparison(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "faster by 10.0%"),
        ({"ratio": 0.9, "low": 0.85, "high": 0.95}, "slower by 10.0%"),
        ({"low": 0.99}, "inside the noise"),
        ({"low": None, "high": None, "samples": (5, 2)}, "too few samples (2; run with -r 5)"),
    ],
)
def test_verdicts(changes, verdict):
    found = Compared((comparison(**changes),), {}, ())
    assert bench_compare.text(found).splitlines()[1].endswith(verdict)


def test_warnings():
    rows = (comparison(same_output=False), comparison(test="pp512", same_output=None))
    found = Compared(rows, {"options.threads": (2, 4)}, ("tg1 warm",))
    assert list(bench_compare.warnings(found)) == [
        "differs: options.threads  2 | 4",
        "in one file only: tg1 warm",
        "the outputs differ (tg128 rotating): A and B computed different things, so their speeds "
        "say nothing about each other",
    ]
    (unknown,) = bench_compare.warnings(Compared((rows[1],), {}, ()))
    assert "not compared" in unknown
    assert not list(bench_compare.warnings(Compared((comparison(),), {}, ())))
