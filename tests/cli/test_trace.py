"""`kimi-local trace`: a recording that can be replayed, the table, its JSON and its plot."""

import contextlib
import io
import json
import os
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

import hybrid
from cli import trace_options
from cli.main import run
from cli.trace_table import K25_RECORD_BYTES
from hybrid.cache.policy import POLICIES
from hybrid.cache.simulate import replay, replay_bound, replay_ram
from hybrid.cache.trace_file import read_trace
from hybrid.errors import KernelError
from tests.cache.routing import made
from tests.cli import fake_engine

EXPERTS, K = 16, 4
TEXT = SimpleNamespace(
    moe_layers=2, n_routed_experts=EXPERTS, num_experts_per_tok=K,
    hidden_size=64, moe_intermediate_size=32,
)  # fmt: skip
RECORD_BYTES = (3 * 64 * 32 // 32) * (16 + 2)  # nibbles of 32 weights, one bf16 scale


class RoutingEngine(fake_engine.FakeEngine):
    """Routes at random: three prompt tokens in a block, then one for each event."""

    hook = None

    @contextlib.contextmanager
    def record(self, recorder):
        self.hook = recorder
        yield
        self.hook = None

    def generate(self, *args, **options):
        self._route(0, 3, prompt=True)
        for token, event in enumerate(super().generate(*args, **options)):
            self._route(3 + token, 1, prompt=False)
            yield event

    def _route(self, start, tokens, *, prompt):
        rng = np.random.default_rng(start)
        for layer in (1, 2):
            ids = np.array([rng.permutation(EXPERTS)[:K] for _ in range(tokens)], np.int32)
            self.hook(layer, start, ids, np.full((tokens, K), 0.25, np.float32), prompt)


@pytest.fixture
def engines(monkeypatch):
    made_engines = []

    def load(*args, **options):
        engine = RoutingEngine()
        engine.config = SimpleNamespace(vision=None, text=TEXT, architecture="Kimi\x1b[31m")
        made_engines.append(engine)
        return engine

    monkeypatch.setattr(hybrid, "load", load, raising=False)
    return made_engines


@pytest.fixture
def trace(home, engines, monkeypatch, capsys):
    """Run `kimi-local trace` with these arguments."""

    def call(*args):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        capsys.readouterr()
        code = run(["trace", *map(str, args)])
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return call


@pytest.fixture
def recorded(trace, home):
    out = home / "routes.jsonl"
    assert trace("record", out, "-m", home / "model", "-p", "hello", "--instant").code == 0
    return out


@pytest.fixture
def compact(tmp_path):
    path = tmp_path / "compact.jsonl"
    picks = made().picks.tolist()
    rows = [json.dumps({"tok": token, "layers": layers}) for token, layers in enumerate(picks)]
    path.write_text("\n".join(rows) + "\n")
    return path


def rows_of(result):
    assert (result.code, result.err) == (0, "")
    return json.loads(result.out)


def test_record_answers_and_writes_what_replay_reads(trace, home, engines):
    out = home / "routes.jsonl"
    result = trace("record", out, "-m", home / "model", "-p", "hello", "--instant", "--seed", "7")
    assert (result.code, result.out) == (0, "You said hello.\n")
    assert "wrote 8 tokens of 2 layers" in result.err
    back = read_trace(out)
    assert back.picks.shape == (8, 2, K)
    assert back.prompt.tolist() == [True] * 3 + [False] * 5
    assert (back.experts, back.record_bytes) == (EXPERTS, RECORD_BYTES)
    call = engines[-1].calls[-1]
    assert (call["thinking"], call["sampling"].seed) == (False, 7)
    assert engines[-1].closed
    table = trace("replay", out, "--slots", "4")
    assert table.code == 0
    assert "8 tokens, 3 of them prompt; 2 layers, 16 experts, 4 per token; Kimi" in table.out
    assert "\x1b" not in table.out


def test_record_as_json_prints_nothing_else(trace, home):
    out = home / "routes.jsonl"
    result = trace("record", out, "-m", home / "model", "-p", "hello", "--json")
    facts = json.loads(result.out)
    assert facts == {
        "file": str(out),
        "tokens": 11,
        "layers": 2,
        "bytes": out.stat().st_size,
    }


def test_record_overwrites_nothing_and_says_so_before_loading(trace, home, engines):
    (home / "mine").write_text("mine")
    result = trace("record", home / "mine", "-m", home / "model", "-p", "hello")
    assert (result.code, engines) == (2, [])
    assert "is there already" in result.err
    assert (home / "mine").read_text() == "mine"


def test_what_was_recorded_before_a_failure_can_be_replayed(trace, home):
    out = home / "routes.jsonl"
    result = trace("record", out, "-m", home / "model", "-p", "boom", "--instant")
    assert result.code == KernelError.exit_code
    assert len(read_trace(out).picks) >= 3


def test_a_full_disk_is_one_line(trace, home, monkeypatch):
    out, write, written = home / "routes.jsonl", os.write, []

    def small_disk(file, data):
        written.append(len(data))
        if sum(written) > 1000:
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", small_disk)
    result = trace("record", out, "-m", home / "model", "-p", "hello")
    monkeypatch.undo()
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith(f"kimi-local: {out}: No space left on device")
    assert len(read_trace(out).picks) >= 3


def test_a_real_model_can_be_recorded(tiny_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    out = tmp_path / "routes.jsonl"
    flags = ["-p", "hi", "--instant", "--max-tokens", "4", "--seed", "3", "--threads", "1"]
    assert run(["trace", "record", str(out), "-m", str(tiny_dir), *flags]) == 0
    trace, config = read_trace(out), hybrid.ModelConfig.from_dir(tiny_dir).text
    assert trace.layers == config.moe_layers
    assert (trace.experts, trace.picks.shape[2]) == (
        config.n_routed_experts,
        config.num_experts_per_tok,
    )
    assert (~trace.prompt).sum() == 3, "the last token of four is sampled and not run"
    assert trace.prompt.sum() > 3


def test_json_says_what_the_simulator_says(trace, compact):
    rows = rows_of(trace("replay", compact, "--slots", "3,25%", "--json"))
    names = list(trace_options.NAMES)
    assert [(row["slots"], row["policy"]) for row in rows] == [
        (slots, name) for slots in (3, 10) for name in names
    ]
    there = read_trace(compact)
    for row in rows:
        bound = replay_bound(there, row["slots"])
        name = row["policy"]
        played = bound if name == "belady" else replay(there, POLICIES[name], row["slots"])
        assert asdict(played).items() <= row.items()
        assert row["behind_bound"] == bound.warm_hit_rate - played.warm_hit_rate
        copied = played.promotions_per_layer_step * K25_RECORD_BYTES
        assert row["promoted_bytes_per_layer_step"] == copied


def test_the_tier_can_be_ram(trace, compact):
    (row,) = rows_of(
        trace("replay", compact, "--slots", "5", "--policy", "lru", "--tier", "ram", "--json")
    )
    expected = replay_ram(read_trace(compact), POLICIES["lru"], 5)
    assert asdict(expected).items() <= row.items()
    assert row["promoted_bytes_per_layer_step"] == row["missed_bytes_per_layer_step"]


def test_record_bytes_come_from_the_flag_the_file_or_k25(trace, compact, recorded):
    one = ("--slots", "2", "--policy", "lru", "--json")
    cases = [(compact, (), K25_RECORD_BYTES), (recorded, (), RECORD_BYTES)]
    cases += [(recorded, ("--record-bytes", "10"), 10)]
    for file, flags, nbytes in cases:
        (row,) = rows_of(trace("replay", file, *one, *flags))
        missed = row["misses_per_layer_step"] * nbytes
        assert row["missed_bytes_per_layer_step"] == pytest.approx(missed)


def test_the_table_lines_up(trace, compact):
    result = trace("replay", compact, "--policy", "decayed-lfu,belady", "--slots", "2,9,40")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "60 tokens, 0 of them prompt; 3 layers, 40 experts, 4 per token"
    assert lines[2].split()[:4] == ["slots", "share", "policy", "hit"]
    assert [line.split()[0] for line in lines[3:9]] == ["2", "2", "9", "9", "40", "40"]
    assert "static" not in result.out


def test_a_torn_recording_says_what_was_dropped(trace, recorded):
    recorded.write_bytes(recorded.read_bytes()[:-9])
    result = trace("replay", recorded, "--slots", "4")
    assert result.code == 0
    assert "is torn and was dropped" in result.err


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("--slots", "six"), "'six' must be a whole number"),
        (("--slots", "-1"), "'-1' must be"),
        (("--slots", "101%"), "'101%' must be 0 to 100 %"),
        (("--slots", "nan%"), "'nan%' must be"),
        (("--slots", ""), "'' must be"),
        (("--slots", "99999999"), "must be a whole number to"),
        (("--slots", ",".join("1" * 65)), "65 capacities; at most 64"),
        (("--policy", "best"), "'best' is no policy; choose of decayed-lfu, lru"),
        (("--record-bytes", "0"), "0 is not in the range"),
        (("--tier", "disk"), "'disk' is not one of"),
        (("--plot", "plot.pdf"), "must end in .svg or .png"),
    ],
)
def test_bad_options_are_one_line(trace, compact, args, hint):
    result = trace("replay", compact, *args)
    assert (result.code, result.out) == (2, "")
    assert hint in result.err
    assert result.err.count("\n") == 1


def test_a_bad_file_is_one_line(trace, compact, tmp_path):
    compact.write_text('{"tok": 0, "layers": [[1, 1]]}\n')
    result = trace("replay", compact)
    assert (result.code, result.out) == (2, "")
    assert f"{compact}:1: a token chooses an expert twice" in result.err
    assert trace("replay", tmp_path / "absent").code == 2


@pytest.mark.parametrize("ending", [".svg", ".png"])
def test_a_plot_is_drawn(trace, compact, tmp_path, ending):
    pytest.importorskip("matplotlib")
    plot, again = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    for path in (plot, again):
        assert trace("replay", compact, "--slots", "2,9", "--plot", path).code == 0
    assert plot.read_bytes() == again.read_bytes()
    if ending == ".svg":
        text = plot.read_text()
        assert all(f">{name}<" in text for name in trace_options.NAMES)


def test_without_matplotlib_one_line_says_what_to_install(trace, compact, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = trace("replay", compact, "--plot", "a.svg")
    assert result.code == 2
    assert "pip install 'kimi-local[bench]'" in result.err


def test_the_names_are_those_of_the_policies():
    assert (*POLICIES, "belady") == trace_options.NAMES
