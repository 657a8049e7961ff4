"""`kimi-local bench` on a real, tiny model: formats, refusals, interrupts; and `bench compare`."""

import csv
import io
import json
import os
import re
import signal
from pathlib import Path

import pytest

from cli import main
from hybrid.benchmark import running
from hybrid.hardware import Rates
from tests.cli.conftest import Result

QUICK = ("-p", "6", "-n", "3", "-r", "3", "--threads", "1", "--activation", "int8")


@pytest.fixture
def bench(home, tiny_dir, monkeypatch, capsys):
    """Run `kimi-local bench` on the tiny model."""
    monkeypatch.setitem(main.COMMANDS, "bench", ("bench", "how fast it is"))

    def run(*args, model=True):
        capsys.readouterr()
        named = ("-m", str(tiny_dir)) if model else ()
        return Result(main.run(["bench", *named, *args]), *capsys.readouterr())

    return run


@pytest.fixture
def files(bench, tmp_path):
    """Two files of the same run, and one of another model's numerics."""
    paths = []
    for name, more in {"a": (), "b": (), "other": ("--backbone-weights", "int8")}.items():
        result = bench(*QUICK, "--json", *more)
        assert result.code == 0
        path = tmp_path / f"{name}.jsonl"
        path.write_text(result.out)
        paths.append(str(path))
    return paths


def test_json_lines_begin_with_the_hardware(bench):
    result = bench(*QUICK, "-d", "0,4", "--json", "--kind", "all")
    assert result.code == 0
    head, *rows = map(json.loads, result.out.splitlines())
    assert {"hardware", "environment", "model", "options", "asked"} < head.keys()
    assert head["options"]["threads"] == 1
    tests = ["pp6", "tg3", "pp6 @ d4", "tg3 @ d4"]
    assert [(row["kind"], row["test"]) for row in rows] == [
        (kind, test) for kind in ("rotating", "warm", "cold") for test in tests
    ]
    for row in rows:
        assert len(row["samples_ts"]) == len(row["samples_ns"]) == len(row["sample_hashes"]) == 3
        assert re.fullmatch("[0-9a-f]{16}", row["output_hash"])
        assert {"vram", "ram", "nvme"} == row["tiers"].keys()
        assert {"predicted_ts", "others_cores", "seconds_per_token"} < row.keys()
        assert row["n_depth"] == (4 if "d4" in row["test"] else 0)
    assert result.err.count("loaded in") == 1 + 4 * 3  # a cold repetition is a load


def test_same_arguments_same_hashes(bench):
    first, second, other = (
        [json.loads(line)["output_hash"] for line in bench(*args).out.splitlines()[1:]]
        for args in ((*QUICK, "--json"), (*QUICK, "--json"), (*QUICK, "--json", "--seed", "1"))
    )
    assert first == second
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_the_table_is_that_of_llama_bench(bench):
    result = bench(*QUICK)
    assert result.code == 0
    heading, rule, *rows = result.out.split("\n\n")[0].splitlines()
    names = [name.strip() for name in heading.strip("|").split("|")]
    assert names[:7] == ["model", "size", "params", "backend", "threads", "test", "t/s"]
    assert rule.count("|") == heading.count("|")
    assert [row.split("|")[6].strip() for row in rows] == ["pp6", "tg3"]
    assert all(re.search(r"\d \| +\d|± \d", row) for row in rows)


def test_tiers_have_columns_when_they_are_used(bench, tmp_path, tiny_dir):
    plain = bench(*QUICK).out
    tiered = bench(*QUICK, "--ram-budget", "20KB").out
    assert "hits ram" in tiered
    assert "hits ram" not in plain


def test_csv_and_json(bench):
    rows = list(csv.DictReader(io.StringIO(bench(*QUICK, "-o", "csv").out)))
    assert [row["test"] for row in rows] == ["pp6", "tg3"]
    assert float(rows[0]["avg_ts"]) > 0
    whole = json.loads(bench(*QUICK, "-o", "json").out)
    assert [row["test"] for row in whole["rows"]] == ["pp6", "tg3"]
    assert "hardware" in whole


def test_a_measured_machine_is_predicted(bench, monkeypatch):
    rates = Rates(ram_gb_s=10, experts_gb_s=9, measured=True)
    monkeypatch.setattr("hybrid.hardware.kept_rates.known_rates", lambda *_: rates)
    rows = [json.loads(line) for line in bench(*QUICK, "--json").out.splitlines()[1:]]
    assert all(row["predicted_ts"] > 0 and row["error"] > -1 for row in rows)
    assert rows[1]["predicted_seconds"].keys() > {"experts", "head"}
    assert rows[1]["tiers"]["ram"]["peak_gb_s"] == 10
    result = bench(*QUICK)
    assert "predicted" in result.out
    assert "no prediction" not in result.err


def test_a_machine_that_was_not_measured_says_how(bench, monkeypatch, tiny_dir):
    monkeypatch.setattr("hybrid.hardware.kept_rates.known_rates", lambda *_: Rates())
    result = bench(*QUICK)
    assert f"kimi-local plan -m {tiny_dir} --threads 1 --calibrate" in result.err
    assert "predicted" not in result.out


@pytest.mark.parametrize(
    ("args", "seen"),
    [
        (("-p", "0", "-n", "0"), "nothing to time"),
        (("-p", "x"), "'x' must be a whole number"),
        (("-p", "-1"), "'-1' must be a whole number"),
        (("-p", "99999999"), "must be a whole number up to"),
        (("-p", ",".join(["1"] * 65)), "at most 64"),
        (("-p", "١"), "must be a whole number"),
        (("-n", "50", "--context", "40"), "--context is 40"),
        (("-d", "20000"), "at most 16384|holds 16,384"),
        (("-d", "40000"), "kv_tokens is 40512; this model allows at most 16384"),
        (("--json", "-o", "csv"), "--json means -o jsonl"),
        (("--batch-size", "4"), "No such option"),
        (("-r", "0"), "0 is not in the range"),
        (("--kind", "hot"), "'hot' is not one of"),
        (("--isa", "mmx"), "mmx"),
    ],
)
def test_what_cannot_be_done_is_one_line(bench, args, seen):
    result = bench(*args)
    assert result.code in (2, 4)
    assert re.search(seen, result.err)
    assert result.out == ""
    notes = ("loaded in", "no prediction")
    complaint = [line for line in result.err.splitlines() if not any(n in line for n in notes)]
    assert len(complaint) == 1


def test_a_directory_without_a_model(bench, home):
    result = bench("-m", str(home / "model"), model=False)
    assert (result.code, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1


def test_what_is_finished_is_printed_when_the_rest_is_broken_off(bench, monkeypatch):
    real, taken = running.take, []

    def take(*args):
        taken.append(args)
        if len(taken) == 6:  # the second of tg3
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(running, "take", take)
    result = bench(*QUICK)
    assert result.code == 130
    assert "| pp6 |" in result.out
    assert "| tg3 |" not in result.out


def test_ctrl_c_is_seen_between_two_layers(bench, monkeypatch):
    real = running.take

    def take(*args):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(running, "take", take)
    result = bench(*QUICK, "--json")
    assert result.code == 130
    assert len(result.out.splitlines()) == 1  # the line about the machine


def test_plots(bench, tmp_path):
    target = tmp_path / "plots" / "new"
    args = (*QUICK, "-d", "0,5", "--ram-budget", "20KB", "--plot", str(target))
    result = bench(*args)
    assert result.code == 0
    drawn = sorted(path.name for path in target.iterdir())
    assert drawn == ["bandwidth.svg", "experts.svg", "speed.svg", "traffic.svg"]
    for path in target.iterdir():
        assert path.read_text().startswith("<?xml")
        assert str(path) in result.err.replace("\n", "")
    speed = (target / "speed.svg").read_text()
    assert "tokens in the context before" in speed
    assert "tg3 rotating" in speed


def test_plots_need_matplotlib_and_a_place(bench, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    result = bench(*QUICK, "--plot", str(tmp_path / "file"))
    assert (result.code, result.out) == (2, "")
    result = bench(*QUICK, "--plot", str(tmp_path / "file" / "below"))
    assert (result.code, result.out) == (1, "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = bench(*QUICK, "--plot", str(tmp_path / "plots"))
    assert result.code == 2
    assert "pip install 'kimi-local[bench]'" in result.err
    assert not (tmp_path / "plots").exists()


def test_equal_runs_compare_equal(bench, files):
    a, b, _ = files
    result = bench("compare", a, b, model=False)
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == ["test", "pp6", "tg3"]
    assert "outputs differ" not in result.err


def test_a_slower_run_is_called_slower(bench, files, tmp_path):
    head, *rows = map(json.loads, Path(files[0]).read_text().splitlines())
    for number, row in enumerate(rows):
        row["samples_ts"] = [100.0, 101.0, 99.0 + number]
    paths = []
    for scale in (1.0, 0.8):
        slow = [row | {"samples_ts": [scale * rate for rate in row["samples_ts"]]} for row in rows]
        paths.append(tmp_path / f"{scale}.jsonl")
        paths[-1].write_text("\n".join(map(json.dumps, [head, *slow])))
    result = bench("compare", *map(str, paths), model=False)
    assert result.code == 0
    assert result.out.count("slower by 20.0%") == 2
    result = bench("compare", *map(str, paths), "--json", model=False)
    found = json.loads(result.out)
    assert [row["inside_noise"] for row in found["rows"]] == [False, False]


def test_other_outputs_end_with_one(bench, files):
    a, _, other = files
    result = bench("compare", a, other, model=False)
    assert result.code == 1
    assert "computed different things" in result.err
    assert "differs: options.backbone_weights  bf16 | int8" in result.err
    assert bench("compare", a, other, "--json", model=False).code == 1


def test_compare_takes_files_and_nothing_else(bench, files, tmp_path):
    result = bench("-r", "5", "compare", *files[:2], model=False)
    assert (result.code, result.out) == (2, "")
    assert "have no effect" in result.err
    result = bench("compare", files[0], str(tmp_path / "none"), model=False)
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1


def test_a_file_cannot_drive_the_terminal(bench, files, tmp_path):
    head, *rows = map(json.loads, Path(files[0]).read_text().splitlines())
    head["environment"]["cpu"] = "\x1b]0;owned\x07 evil\nline" + "x" * 500
    hostile = tmp_path / "hostile.jsonl"
    hostile.write_text("\n".join(map(json.dumps, [head, *rows])))
    result = bench("compare", files[0], str(hostile), model=False)
    assert result.code == 0
    assert "\x1b" not in result.out + result.err
    assert max(map(len, result.err.splitlines())) < 300
