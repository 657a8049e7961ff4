"""`kimi-local prepare`: what it prints, what it returns, and that options reach the runtime."""

import errno
import json
import os
import sys

import pytest

from cli import main
from hybrid.cache import direct_io
from hybrid.cache import prepare as runtime
from hybrid.cache.prepare import Prepared
from hybrid.cache.record_file import DEFAULT_NAME
from hybrid.tiny import TinyShape, write_tiny
from tests.cache import record_cases as cases


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    shape = TinyShape(num_hidden_layers=2, n_routed_experts=4, num_experts_per_tok=2)
    return write_tiny(tmp_path_factory.mktemp("prepare") / "model", shape, seed=1, vision=False)


@pytest.fixture
def invoke(monkeypatch, capsys):
    """Run the command; returns exit code, stdout and stderr."""
    monkeypatch.setitem(main.COMMANDS, "prepare", ("prepare", "write the record file"))

    def run(*args):
        code = main.run(["prepare", *map(str, args)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_it_says_what_it_wrote(invoke, model, tmp_path):
    output = tmp_path / "x.records"
    code, out, err = invoke(model, "--output", output)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    assert out.startswith(f"wrote {output}: 4 records, 24.6 kB, at ")
    assert "; verified; " in out
    code, out, _ = invoke(model, "--output", output)
    assert (code, out) == (0, f"{output} holds all of the model's 4 records, 24.6 kB; verified\n")
    code, out, _ = invoke(model, "--output", output, "--no-verify")
    assert (code, out) == (
        0,
        f"{output} holds all of the model's 4 records, 24.6 kB; not verified\n",
    )


def test_it_says_what_it_mended(invoke, model, tmp_path):
    output = tmp_path / "x.records"
    invoke(model, "--output", output)
    with output.open("r+b") as file:
        file.seek(cases.contents(model).offset(2))
        file.write(b"damaged")
    assert invoke(model, "--output", output)[1].endswith("; verified, 1 of them mended\n")


def test_a_program_reads_json(invoke, model, tmp_path):
    output = tmp_path / "x.records"
    report = json.loads(invoke(model, "--output", output, "--json")[1])
    assert report.pop("seconds") > 0
    assert report.pop("gb_per_s") > 0
    first = {
        "file": str(output), "bytes": output.stat().st_size, "records": 4, "written": 4,
        "mended": 0, "verified": True,
    }  # fmt: skip
    assert report == first
    again = json.loads(invoke(model, "--output", output, "--json", "--no-verify")[1])
    assert again.pop("seconds") > 0
    assert again == first | {"written": 0, "gb_per_s": None, "verified": False}


def test_options_reach_the_runtime(invoke, model, tmp_path, monkeypatch):
    seen = []

    def prepare(*args, progress, **options):
        seen.append((args, options))
        return Prepared(model / "x", cases.contents(model))

    monkeypatch.setattr(runtime, "prepare", prepare)
    invoke(model)
    invoke(model, "--output", tmp_path / "y", "--threads", 3, "--no-verify", "--force")
    assert seen == [
        ((model, None), {"threads": None, "verify": True, "force": False}),
        ((model, tmp_path / "y"), {"threads": 3, "verify": False, "force": True}),
    ]


def test_the_help_names_the_default(invoke):
    assert f"MODEL/{DEFAULT_NAME}" in invoke("--help")[1]


def test_help_does_not_wait_for_numba(invoke, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("hybrid.cache", "cli.prepare"))]:
        monkeypatch.delitem(sys.modules, name)
    assert invoke("--help")[0] == 0
    assert not [name for name in sys.modules if name.startswith("hybrid.cache")]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--threads", "0"), 2, "threads is 0; it must be 1 ... 64"),
        (("--output", "/dev/full"), 2, "/dev/full is not a regular file"),
        (("--output", "/proc/x.records"), 3, "give another place with --output"),
        (("--threads", "many"), 2, "--threads"),
    ],
)
def test_mistakes_are_one_line(invoke, model, args, code, said):
    got, out, err = invoke(model, *args)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert said in err


def test_a_full_disk_is_exit_code_3(invoke, model, tmp_path, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(direct_io.os, "pwritev", write)
    code, out, err = invoke(model, "--output", tmp_path / "x.records")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "0.000 GB more are needed; what is written is kept" in err


def test_ctrl_c_is_130_and_what_is_written_is_kept(invoke, model, tmp_path, monkeypatch):
    """The signal comes while a record is read; the run ends at the next report."""
    output = tmp_path / "x.records"
    real, calls = runtime.Job.repacked, []

    def repacked(job, index, slot):
        calls.append(index)
        if len(calls) == 2:
            os.kill(os.getpid(), 2)
        return real(job, index, slot)

    with monkeypatch.context() as patch:
        patch.setattr(runtime.Job, "repacked", repacked)
        code, out, _ = invoke(model, "--output", output, "--threads", "1")
    assert (code, out) == (130, "")
    assert not output.exists()
    code, out, _ = invoke(model, "--output", output, "--json")
    assert code == 0
    assert json.loads(out)["written"] < 4
