"""Traces: what is written comes back, what is torn is dropped, what is hostile is one line."""

import contextlib
import json
import os

import numpy as np
import pytest

from hybrid.cache import trace_file
from hybrid.cache.recorder import Recorder
from hybrid.cache.trace_file import read_trace
from hybrid.chat.vocabulary import Vocabulary
from hybrid.errors import KimiLocalError, RequestError
from hybrid.tiny import TinyShape
from hybrid.tiny.bpe import build_vocabulary, special_names
from nano.model.shape import model_config
from tests.cache.routing import made, published

FACTS = {"model": "tiny", "layers": 3, "experts": 40, "k": 4, "record_bytes": 4608}


@pytest.fixture
def written(tmp_path):
    def write(*lines, end="\n"):
        path = tmp_path / "trace.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(texts) + end)
        return path

    return write


def record(path, trace, chunks=((0, 5), (5, 6), (6, 7)), first_layer=1):
    """As an engine does: block by block, in each of them layer by layer."""
    weights = np.random.default_rng(0).random(trace.picks.shape, np.float32)
    with Recorder(path, **FACTS | {"layers": trace.layers}) as recorder:
        for first, last in chunks:
            for layer in range(trace.layers):
                ids, share = trace.picks[first:last, layer], weights[first:last, layer]
                recorder(first_layer + layer, first, ids, share, bool(trace.prompt[first]))
    return recorder, weights


def test_what_was_recorded_comes_back(tmp_path):
    trace = made(tokens=7, prompt=5)
    recorder, weights = record(tmp_path / "t.jsonl", trace)
    back = read_trace(tmp_path / "t.jsonl")
    assert np.array_equal(back.picks, trace.picks)
    assert np.array_equal(back.prompt, trace.prompt)
    assert (back.experts, back.record_bytes, back.model, back.notes) == (40, 4608, "tiny", ())
    assert recorder.rows == 7 * 3
    assert recorder.nbytes == (tmp_path / "t.jsonl").stat().st_size
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    header, first = json.loads(lines[0]), json.loads(lines[1])
    assert header == {"trace": 1, **FACTS}
    assert first["prompt"] is True
    assert np.array_equal(np.array(first["weights"], np.float32), weights[0, 0])


def test_the_compact_form(written):
    path = written({"tok": 0, "layers": [[1, 2], [0, 3]]}, {"tok": 1, "layers": [[5, 1], [2, 0]]})
    trace = read_trace(path)
    assert trace.picks.tolist() == [[[1, 2], [0, 3]], [[5, 1], [2, 0]]]
    assert not trace.prompt.any()
    assert (trace.experts, trace.record_bytes) == (6, None)


def test_the_published_trace():
    trace = published()
    assert trace.picks.shape == (300, 26, 8)
    assert trace.experts == 256


@pytest.mark.parametrize("cut", [1, 20, 60, 90])
def test_a_torn_end_is_dropped_with_a_note(tmp_path, cut):
    trace, path = made(tokens=7, prompt=5), tmp_path / "t.jsonl"
    record(path, trace)
    os.truncate(path, path.stat().st_size - cut)
    back = read_trace(path)
    whole = 7 if cut == 1 else 6  # the newline alone is not missed
    assert np.array_equal(back.picks, trace.picks[:whole])
    assert bool(back.notes) == (cut > 1)


def test_every_truncation_reads_or_is_refused_in_one_line(tmp_path):
    trace, path = made(tokens=3, layers=2, prompt=2), tmp_path / "t.jsonl"
    record(path, trace, chunks=((0, 2), (2, 3)))
    read = []
    for size in range(path.stat().st_size, -1, -1):
        os.truncate(path, size)
        with contextlib.suppress(RequestError):
            read.append(len(read_trace(path).picks))
    assert read == sorted(read, reverse=True)
    assert set(read) == {1, 2, 3}


ROW = {"step": 0, "layer": 1, "ids": [1, 2]}
HEADER = {"trace": 1, "experts": 8, "k": 2}
HOSTILE = {
    "no JSON": (["{]", ROW], ":1: not a line of JSON"),
    "no object": ([[1, 2], ROW], ":1: not a JSON object"),
    "not UTF-8": (['{"tok": 0, "layers": [["\udcff"]]}', ROW], "not a line of JSON"),
    "nested": (["[" * 100_000, ROW], "not a line of JSON"),
    "too many digits": (['{"tok": ' + "9" * 5000 + "}", ROW], "not a line of JSON"),
    "empty line": ([ROW, "", ROW], ":2: not a line of JSON"),
    "nothing": ([], "holds no token"),
    "header alone": ([HEADER], "holds no token"),
    "other version": ([HEADER | {"trace": 2}, ROW], 'trace version 2; this program reads 1'),
    "late header": ([ROW, HEADER], ":2: a header belongs in the first line"),
    "header without experts": ([{"trace": 1, "k": 2}], '"experts" is None'),
    "endless experts": ([HEADER | {"experts": 10**9}], '"experts" is 1000000000'),
    "bytes": ([HEADER | {"record_bytes": -1}], '"record_bytes" is -1'),
    "mixed": ([ROW, {"tok": 0, "layers": [[1, 2]]}], ":2: lines with"),
    "no layer": ([{"step": 0, "ids": [1]}], '"layer" is None'),
    "layer": ([ROW | {"layer": 10**6}], '"layer" is 1000000'),
    "step": ([ROW | {"step": 1.5}], '"step" is 1.5'),
    "true step": ([ROW | {"step": True}], '"step" is True'),
    "prompt": ([ROW | {"prompt": "yes"}], "\"prompt\" is 'yes'"),
    "no ids": ([ROW | {"ids": []}], "expert ids are []"),
    "ids": ([ROW | {"ids": "12"}], "expert ids are '12'"),
    "id": ([HEADER, ROW | {"ids": [1, 8]}], ":2: expert 8; ids are whole numbers below 8"),
    "negative": ([ROW | {"ids": [1, -2]}], "expert -2"),
    "true": ([ROW | {"ids": [1, True]}], "expert True"),
    "huge": ([ROW | {"ids": [1, 10**40]}], "expert 1000"),
    "twice": ([ROW | {"ids": [3, 3]}], "chooses an expert twice: [3, 3]"),
    "other k": ([ROW, ROW | {"ids": [1]}], ":2: 1 expert ids where the others have 2"),
    "k of the header": ([HEADER, ROW | {"ids": [1]}], ":2: 1 expert ids where the others have 2"),
    "layers": ([{"tok": 0, "layers": {}}], '"layers" must be a list'),
    "no layers": ([{"tok": 0, "layers": []}], '"layers" must be a list'),
    "fewer layers": (
        [{"tok": 0, "layers": [[1], [2]]}, {"tok": 1, "layers": [[1]]}],
        ":2: 1 layers where the lines before have 2",
    ),
    "other steps": (
        [ROW, ROW | {"layer": 2}, ROW | {"step": 1}, ROW | {"layer": 2, "step": 2}],
        "layer 2 has other steps",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_trace_is_refused_in_one_line(tmp_path, case):
    lines, hint = HOSTILE[case]
    path = tmp_path / "t.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_bytes("".join(f"{text}\n" for text in texts).encode(errors="surrogateescape"))
    with pytest.raises(RequestError) as caught:
        read_trace(path)
    assert hint in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_long_lines_and_long_files_are_bounded(written, monkeypatch):
    monkeypatch.setattr(trace_file, "MAX_LINE", 60)
    path = written(ROW, '{"tok": 0' + " " * 100 + "}")
    with pytest.raises(RequestError, match="line is longer than 60 bytes"):
        read_trace(path)
    monkeypatch.setattr(trace_file, "MAX_IDS", 5)
    path = written(ROW, ROW | {"step": 1}, ROW | {"step": 2})
    with pytest.raises(RequestError, match=r":3: more than 5 expert ids"):
        read_trace(path)


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "absent", "."):
        with pytest.raises(RequestError, match="is not a file"):
            read_trace(tmp_path / name)


def test_steps_may_begin_again_as_in_a_conversation_that_was_cut_back(written):
    path = written(*(ROW | {"step": step} for step in (0, 1, 2, 1, 2)))
    assert len(read_trace(path).picks) == 5


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    """The third call is written by half before the disk is full."""
    trace, path, calls = made(tokens=4, layers=1), tmp_path / "t.jsonl", []
    write = os.write

    def full(file, data):
        calls.append(len(data))
        if len(calls) == 4:
            return write(file, data[: len(data) // 2])
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(KimiLocalError, match="No space left on device; the trace ends after 2"):
        record(path, trace, chunks=[(0, 1), (1, 2), (2, 3)])
    assert path.read_bytes().endswith(b"}\n")
    assert np.array_equal(read_trace(path).picks, trace.picks[:2])


def test_a_disk_that_is_full_from_the_start_leaves_no_file(tmp_path, monkeypatch):
    def full(file, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(KimiLocalError, match="No space left"):
        record(tmp_path / "t.jsonl", made(tokens=1))
    assert list(tmp_path.iterdir()) == []


def test_a_recording_of_nothing_leaves_no_file(tmp_path):
    with Recorder(tmp_path / "t.jsonl", **FACTS):
        pass
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "t.jsonl").write_text("mine")
    with pytest.raises(RequestError, match="is there already"):
        Recorder(tmp_path / "t.jsonl", **FACTS)
    with pytest.raises(RequestError, match="No such file"):
        Recorder(tmp_path / "nowhere" / "t.jsonl", **FACTS)
    assert (tmp_path / "t.jsonl").read_text() == "mine"


def test_weights_that_are_no_numbers_leave_valid_json(tmp_path):
    with Recorder(tmp_path / "t.jsonl", **FACTS | {"layers": 1}) as recorder:
        weights = np.array([[np.nan, np.inf, 0.5, 0.25]], np.float32)
        recorder(0, 0, np.array([[0, 1, 2, -1]], np.int32), weights, False)
    row = json.loads((tmp_path / "t.jsonl").read_text().splitlines()[1])
    assert row["weights"] == [None, None, 0.5, 0.25]
    assert read_trace(tmp_path / "t.jsonl").picks.tolist() == [[[0, 1, 2, -1]]]


def test_a_model_without_experts_leaves_nothing_to_record(tmp_path):
    shape = TinyShape(num_hidden_layers=2, first_k_dense_replace=2)
    vocabulary = Vocabulary(build_vocabulary(256), special_names(256))
    with pytest.raises(RequestError, match="no layer with experts"):
        Recorder.of(model_config(shape, vocabulary), tmp_path / "t.jsonl")
    assert not (tmp_path / "t.jsonl").exists()
