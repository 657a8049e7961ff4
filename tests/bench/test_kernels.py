"""The command's choices before it measures, and its rounds over engines that only pretend."""

import json
import subprocess
import sys
from argparse import ArgumentTypeError, Namespace

import kernels
import numpy as np
import pytest
import rounds
from rounds import Run
from rows import MACHINE
from synthetic import RECORD_BYTES

from hybrid.errors import PlacementError
from tests.contracts.files import ROOT


@pytest.mark.parametrize(
    ("available", "peers", "experts"),
    [
        (100e9, [], 384),
        (2e9 + 200.5 * RECORD_BYTES, [], 200),
        (4e9 + 200.5 * 2 * RECORD_BYTES, ["llama.cpp"], 200),
        (6e9 + 200.5 * 3 * RECORD_BYTES, ["llama.cpp", "llama.cpp"], 200),
    ],
)
def test_ram_limits_the_experts(available, peers, experts):
    assert kernels.resident([384, 64], available, peers) == experts


def test_too_few_to_say_something_are_refused():
    with pytest.raises(PlacementError, match=r"for 40 experts in 1\.0 copies; 97 are the few"):
        kernels.resident([384], 2e9 + 40.5 * RECORD_BYTES, [])
    assert kernels.resident([32], 2e9 + 40.5 * RECORD_BYTES, []) == 32  # asked for


def test_lists_of_numbers():
    assert kernels.numbers(1)("1,2,16") == [1, 2, 16]
    assert kernels.numbers(1)("") == []
    assert kernels.words("int8,int16") == ["int8", "int16"]
    with pytest.raises(ArgumentTypeError, match="7 is too small; 8 is the least"):
        kernels.numbers(8)("384,7")


@pytest.mark.parametrize(
    ("host", "isas", "peaks"),
    [
        (("avx2", "avx512vnni"), ["avx2"], ["avx2"]),
        (("avx2", "avx512vnni"), ["avx512vnni", "avx2"], ["avx2", "avx512vnni"]),
        (("avx2", "avx512vnni"), ["avx2", "amx"], ["avx2", "avx512vnni"]),
        (("avx2",), ["portable", "avx2"], ["avx2"]),
        ((), ["portable"], []),
    ],
)
def test_every_set_has_a_loop_to_be_held_against(host, isas, peaks):
    assert kernels.peaks(host, isas) == peaks


class Engine:
    """Takes as long as it says: seconds a token."""

    activation = ""

    def __init__(self, name, threads, pace):
        self.engine, self.threads, self.isa, self.pace = name, threads, name, pace
        self.steps = []

    def resume(self):
        self.awake = True

    def suspend(self):
        self.awake = False

    def step(self, x, routing, output=False):
        assert self.awake
        assert len(x) == len(routing.ids)
        self.steps.append((len(x), routing.ids.max()))
        return self.pace * len(x), None


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setattr(rounds, "Team", lambda threads: Machine(threads))
    engines = [Engine("fast", 1, 0.001), Engine("slow", 1, 0.5), Engine("fast", 2, 0.001)]
    options = Namespace(
        threads=[1, 2], rounds=3, prefill_rounds=1, peaks=["avx2"], experts=[16, 8],
        decode=[1, 2], prefill=[16, 64],
    )  # fmt: skip
    run = Run(options, engines, np.zeros((64, 4), np.float32))
    rounds.measure(run, np.zeros((16, 10), np.uint8))
    return run


class Machine:
    """A team that reads and computes in no time worth mentioning."""

    def __init__(self, threads):
        self.threads = threads

    def read(self, memory, streams=1):
        return memory.nbytes, 1.0

    def peak(self, isa):
        return 1000, 1.0


def test_every_step_is_taken_once_a_round_with_both_poolings(found):
    counts = {subject: len(taken) for subject, taken in found.samples.items()}
    for subject, count in counts.items():
        assert count == (1 if subject.what == "prefill" else 3), subject
    steps = {(s.engine, s.threads, s.tokens, s.experts) for s in counts if s.engine != MACHINE}
    assert ("fast", 2, 64, 8) in steps
    assert ("fast", 2, 64, 16) in steps
    machine = {(s.what, s.threads, s.isa) for s in counts if s.engine == MACHINE}
    whats = (("read", ""), ("streams", ""), ("peak", "avx2"))
    assert machine == {(what, threads, isa) for what, isa in whats for threads in (1, 2)}


def test_steps_follow_a_step_of_one_token(found):
    for engine in found.engines:
        assert [tokens for tokens, _ in engine.steps[0::2]] == [1] * (len(engine.steps) // 2)


def test_engines_get_the_same_inputs(found):
    fast, slow, _ = found.engines
    assert [step for step in fast.steps if step[0] == 16] == [
        step for step in slow.steps if step[0] == 16
    ]


def test_what_would_take_too_long_is_left_out_and_said(found):
    assert found.left_out == {"slow, 1 threads, 64 tokens": "about 32 s"}
    assert not any(s.engine == "slow" and s.tokens == 64 for s in found.samples)


def test_samples_count_distinct_records(found):
    for subject, taken in found.samples.items():
        if subject.tokens == 1:
            assert {sample.nbytes for sample in taken} == {8 * RECORD_BYTES}
        if subject.tokens == 64 and subject.experts == 8:
            assert taken[0].distinct == 8
            assert taken[0].macs == 64 * 8 * 3 * 7168 * 2048


@pytest.mark.slow
def test_the_command_measures_and_writes_json_lines(tmp_path):
    target = tmp_path / "rows.jsonl"
    command = [
        sys.executable, "bench/kernels.py", "--experts", "12,8", "--decode", "1", "--prefill", "17",
        "--rounds", "1", "--threads", "1,2", "--json", str(target),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("engine")
    head, *lines = map(json.loads, target.read_text().splitlines())
    assert head["experts"] == 12
    assert head["environment"]["cores"] >= 1
    assert len(lines) == 2 * (3 + 2 * 2)  # two reads and the peak, then two steps over two pools
    assert all(line["milliseconds"][1] <= line["milliseconds"][2] for line in lines)
    assert all(0 < line["of_peak"] < 2 for line in lines if line["engine"] == "ours")
