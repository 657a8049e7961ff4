"""What a gap between plan and answer is put down to."""

import json
from dataclasses import asdict, replace

import pytest

from hybrid.cpu_experts import kernel_files
from hybrid.doctor import explain
from hybrid.errors import ConfigError
from hybrid.last_run import KEPT, VERSION, Run, Side, parse, recall, remember

SAID = Side(
    decode_tok_s=5.0,
    prefill_tok_s=100.0,
    decode_s={
        "attention": 0.05, "cache": 0.01, "experts": 0.08, "experts_file": 0.04, "step": 0.02,
    },
    prefill_s={"attention": 0.004, "experts": 0.006},
    hits={"vram": 0.0, "ram": 0.9, "nvme": 0.1},
    rates={"experts_gb_s": 150.0, "disk_gb_s": 6.0},
)  # fmt: skip
ALIKE = replace(SAID, decode_s={"attention": 0.06, "experts": 0.12, "hand-offs": 0.02})


def run(**measured):
    return Run(
        model="k2.5", prompt_tokens=500, decode_steps=100,
        measured=replace(ALIKE, **measured), predicted=SAID,
    )  # fmt: skip


def told(*runs):
    return explain({"version": VERSION, "runs": [json.loads(json.dumps(asdict(r))) for r in runs]})


def test_nothing_to_explain():
    assert told(run()) == [
        "k2.5",
        "decode: 5.00 tok/s, planned 5.00; the last answer is within 25% of the plan",
        "prefill: 100.00 tok/s, planned 100.00; the last answer is within 25% of the plan",
    ]
    assert told() == ["no answer has been recorded yet"]


SLOW = {"decode_tok_s": 2.5}  # 200 ms more a token


@pytest.mark.parametrize(
    ("measured", "part", "why"),
    [
        ({"decode_s": {"attention": 0.26}}, "attention: 260.0", "with the context"),
        ({"decode_s": {"attention": 0.06, "experts": 0.3}}, "experts: 300.0", "another process"),
        (
            {"decode_s": {"hand-offs": 0.2}},
            "hand-offs: 200.0 ms a token, planned 20.0",
            "a core free",
        ),
        ({"decode_s": {"shared": 0.2}}, "shared: 200.0 ms a token, planned 0.0", "another process"),
        (
            {"decode_s": {"experts": 0.3}, "hits": {"ram": 0.7, "nvme": 0.3}},
            "experts: 300.0 ms a token, planned 120.0",
            "30% of the experts came from the file, planned 10%",
        ),
        (
            {"decode_s": {"experts": 0.3}, "rates": {"disk_gb_s": 2.0, "experts_gb_s": 149.0}},
            "experts: 300.0",
            "the disk gave 2.0 GB/s of experts, planned 6.0",
        ),
        (
            {"decode_s": {"experts": 0.3}, "rates": {"disk_gb_s": 6.0, "experts_gb_s": 60.0}},
            "experts: 300.0",
            "RAM gave 60.0 GB/s of experts, planned 150.0",
        ),
    ],
)
def test_a_slow_decode_names_its_part_and_link(measured, part, why):
    lines = told(run(**SLOW, **measured))
    assert lines[1].endswith("the last answer took 100% more time than planned")
    assert part in lines[2]
    assert why in lines[3]


def test_one_slow_answer_is_nobodys_fault():
    lines = told(run(), run(), run(**SLOW))
    assert "the median of 3 answers is within 25% of the plan" in lines[1]
    lines = told(run(**SLOW), run(), run(**SLOW))  # but two of three are
    assert "the median of 3 answers took 100% more time" in lines[1]


def test_just_within_the_gap():
    assert "within" in told(run(decode_tok_s=4.0))[1]
    assert "more time" in told(run(decode_tok_s=3.9))[1]


def test_a_slow_prefill():
    lines = told(run(prefill_tok_s=20.0, prefill_s={"attention": 0.004, "experts": 0.046}))
    assert "400% more time" in lines[2]
    assert lines[3] == "  experts: 46.0 ms a token, planned 6.0"
    assert "another process" in lines[4]
    assert len(told(run(prefill_tok_s=20.0, prefill_s={}))) == 3  # nobody timed the parts


def test_a_fast_machine_is_measured_anew():
    assert any("doctor --deep" in line for line in told(run(decode_tok_s=10.0)))


def test_short_answers_say_nothing():
    short = replace(run(**SLOW), decode_steps=7, prompt_tokens=31)
    assert told(short)[1:] == [
        "decode: nothing to compare yet",
        "prefill: nothing to compare yet",
    ]


def test_only_the_last_model_counts():
    other = replace(run(**SLOW), model="another")
    assert "the last answer is within" in told(other, run())[1]


@pytest.mark.parametrize(
    "last",
    [
        {},
        {"version": 2, "runs": []},
        {"version": 1, "runs": {}},
        {"version": 1, "runs": [1]},
        {"version": 1, "runs": [{}]},
        {"version": 1, "runs": [{}] * (KEPT + 1)},
    ],
)
def test_other_formats_are_refused(last):
    with pytest.raises(ConfigError, match="last run"):
        explain(last)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("decode_tok_s", -1), ("decode_tok_s", "5"), ("decode_s", []), ("decode_s", {"a": "b"}),
        ("decode_s", {str(i): 0.1 for i in range(65)}), ("hits", {"ram": 1.5}),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(part, value):
    values = asdict(run())
    values["measured"][part] = value
    with pytest.raises(ConfigError, match=part):
        parse({"version": VERSION, "runs": [values]})


@pytest.fixture
def files(monkeypatch):
    kept = {}
    monkeypatch.setattr(kernel_files, "read", lambda name, key: kept.get(name))
    monkeypatch.setattr(kernel_files, "write", lambda name, _, data: kept.update({name: data}))
    return kept


def test_the_last_runs_are_remembered(files):
    assert recall() is None
    for number in range(KEPT + 2):
        remember(replace(run(), prompt_tokens=number))
    assert [each.prompt_tokens for each in parse(recall())] == list(range(2, KEPT + 2))


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b'{"version": 1, "runs": 3}'])
def test_a_file_that_is_something_else_is_forgotten(files, content):
    files["last-run"] = content
    assert recall() is None
    remember(run())
    assert len(parse(recall())) == 1
