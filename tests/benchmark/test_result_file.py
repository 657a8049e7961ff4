"""Files of a benchmark come from anywhere: what is wrong with one is a line that names it."""

import json

import pytest

from hybrid.benchmark import result_file
from hybrid.benchmark.result_file import Result, read_results
from hybrid.errors import RequestError

HEAD = {"bench": 1, "environment": {}}
ROW = {"test": "tg128", "kind": "warm", "samples_ts": [1, 2.5], "sample_hashes": ["a", "b"]}


@pytest.fixture
def written(tmp_path):
    def write(*lines):
        path = tmp_path / "a.jsonl"
        path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
        return path

    return write


def test_what_is_read(written):
    results = read_results(written(HEAD, "", ROW, ROW | {"kind": "cold", "more": {}}, ""))
    assert results.head == HEAD
    assert results.rows[0] == Result("tg128", "warm", (1.0, 2.5), ("a", "b"))
    assert [row.key for row in results.rows] == [("tg128", "warm"), ("tg128", "cold")]


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        ([], "does not begin"),
        ([ROW], "does not begin"),
        ([HEAD | {"bench": 2}, ROW], "does not begin"),
        (["hello"], "line 1 is no JSON"),
        ([HEAD, "{"], "line 2 is no JSON"),
        ([HEAD, "[" * 100_000], "line 2 is no JSON"),
        ([HEAD, "[1]"], "line 2 is [1]; expected an object"),
        ([HEAD, ROW, ROW], "has a row twice"),
        ([HEAD, HEAD], "line 2 has test None"),
        ([HEAD, ROW | {"test": "a\nb"}], "line 2 has test"),
        ([HEAD, ROW | {"test": "x" * 201}], "line 2 has test"),
        ([HEAD, ROW | {"kind": 3}], "line 2 has kind 3"),
        *(
            ([HEAD, ROW | {"samples_ts": bad}], "line 2 has samples_ts")
            for bad in (None, [], "12", [0], [-1], [True], ["1"], [None], [1e13], [[1]])
        ),
        ([HEAD, json.dumps(ROW).replace("2.5", "NaN")], "line 2 has samples_ts"),
        ([HEAD, json.dumps(ROW).replace("2.5", "1e999")], "line 2 has samples_ts"),
        ([HEAD, ROW | {"sample_hashes": [1]}], "line 2 has sample_hashes"),
        ([HEAD, ROW | {"sample_hashes": "ab"}], "line 2 has sample_hashes"),
    ],
)
def test_what_is_wrong_is_one_line(written, lines, seen):
    with pytest.raises(RequestError) as error:
        read_results(written(*lines))
    assert seen in str(error.value)
    assert "a.jsonl" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\xff\xfe\x00{}")
    with pytest.raises(RequestError, match="no JSON"):
        read_results(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RequestError, match="No such file"):
        read_results(tmp_path / "none")
    with pytest.raises(RequestError, match="directory"):
        read_results(tmp_path)


def test_size_is_bounded(written, monkeypatch):
    path = written(HEAD, ROW)
    monkeypatch.setattr(result_file, "MAX_BYTES", path.stat().st_size)
    read_results(path)
    monkeypatch.setattr(result_file, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(RequestError, match="too large"):
        read_results(path)


def test_rows_are_bounded(written, monkeypatch):
    monkeypatch.setattr(result_file, "MAX_ROWS", 2)
    with pytest.raises(RequestError, match="too large"):
        read_results(written(HEAD, ROW, ""))
