"""`kimi-local doctor`: what it prints and how it ends."""

import json

import pytest

import hybrid.doctor
import hybrid.last_run
from cli import main
from hybrid.doctor.check import bad, good, none

CHECKS = [good("cores", "64 cores"), none("NUMA", "one node")]
FAULT = bad("swap", "8.0 GB\x1b[2J", "sudo sysctl vm.swappiness=1")


@pytest.fixture
def invoke(home, monkeypatch, capsys):
    """Run the command; returns exit code, stdout and stderr."""
    monkeypatch.setitem(main.COMMANDS, "doctor", ("doctor", "check this machine"))

    def run(*args):
        code = main.run(["doctor", *map(str, args)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def examined(monkeypatch):
    """What `examine` was asked; it finds `CHECKS`, and the fault if that is put in."""
    asked, checks = [], list(CHECKS)

    def examine(model_dir, *, deep, sink):
        sink("software")
        asked.append((model_dir, deep))
        return checks

    monkeypatch.setattr(hybrid.doctor, "examine", examine)
    return asked, checks


def test_all_is_well(invoke, examined):
    code, out, err = invoke()
    assert (code, err) == (0, "")
    assert out == "ok    cores  64 cores\n-     NUMA   one node\nnothing is wrong\n"


def test_a_failed_check_ends_with_one(invoke, examined):
    examined[1].append(FAULT)
    code, out, _ = invoke()
    assert code == 1
    assert "FAIL  swap   8.0 GB" in out
    assert "-> sudo sysctl vm.swappiness=1" in out
    assert "\x1b" not in out
    assert out.endswith("1 of 3 checks failed\n")


def test_json(invoke, examined):
    examined[1].append(FAULT)
    code, out, _ = invoke("--json")
    assert code == 1
    assert json.loads(out) == [check.to_json() for check in [*CHECKS, FAULT]]
    assert [set(each) for each in json.loads(out)] == [{"name", "ok", "found", "fix"}] * 3
    del examined[1][-1]
    assert invoke("--json")[0] == 0


def test_options_reach_the_runtime(invoke, examined, home, monkeypatch):
    invoke("--model", home / "model", "--deep")
    monkeypatch.setenv("KIMI_LOCAL_MODEL", "/somewhere")
    invoke()
    asked, _ = examined
    assert asked[0] == (home / "model", True)
    assert (str(asked[1][0]), asked[1][1]) == ("/somewhere", False)


def test_last(invoke, monkeypatch):
    last = {"version": 1, "runs": []}
    monkeypatch.setattr(hybrid.last_run, "recall", lambda: last)
    assert invoke("--last") == (0, "no answer has been recorded yet\n", "")
    code, out, _ = invoke("--last", "--json")
    assert (code, json.loads(out)) == (0, last | {"lines": ["no answer has been recorded yet"]})


def test_last_without_an_answer(invoke, monkeypatch):
    monkeypatch.setattr(hybrid.last_run, "recall", lambda: None)
    code, out, err = invoke("--last")
    assert (code, out) == (2, "")
    assert "run kimi-local chat first" in err


@pytest.mark.parametrize("args", [("--last", "--deep"), ("--last", "-m", "x"), ("--wide",)])
def test_usage(invoke, args):
    code, _, err = invoke(*args)
    assert code == 2
    assert err.count("\n") == 1


def test_the_real_thing(invoke):
    """On this machine, whatever it finds: exit code and table agree."""
    code, out, err = invoke("--json")
    checks = json.loads(out)
    assert err == ""
    assert code == int(any(check["ok"] is False for check in checks))
    assert {"Python", "CPU kernels", "memory"} <= {check["name"] for check in checks}
