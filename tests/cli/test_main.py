"""The edges of a run: help, mistakes, signals, closed pipes and full disks."""

import importlib.metadata
import pwd
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli import main, settings
from hybrid.errors import CheckpointError, KernelError, KimiLocalError, PlacementError
from tests.cli.terminal import FAKE, environment

HEAVY = {"torch", "numba", "numpy", "rich", "prompt_toolkit", "tokenizers", "jinja2"}
CHECK = (
    "import sys; from cli.main import run; run({args}); print(*set(sys.modules), file=sys.stderr)"
)


def imported_by(code: str, repo: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("args", [["--help"], ["chat", "--help"], ["nonsense"]])
def test_help_imports_nothing_heavy(args, repo):
    loaded = imported_by(CHECK.format(args=args), repo)
    assert "cli.main" in loaded
    assert not loaded & HEAVY


def test_help_import_check_sees_a_planted_import(repo):
    loaded = imported_by("import rich.text;" + CHECK.format(args=["--help"]), repo)
    assert loaded & HEAVY == {"rich"}


def test_help_lists_every_command_without_importing_it(capsys):
    assert main.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown and text in shown for name, (_, text) in main.COMMANDS.items())


def test_no_arguments_shows_help_as_an_error(capsys):
    assert main.run([]) == 2
    assert "Commands" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["chta"], "Did you mean 'chat'"),
        (["chat", "--temprature", "1"], "--temperature"),
        (["chat", "--device", "tpu"], "'cpu'"),
        (["chat", "--threads", "0"], "1<=x"),
        (["chat", "--temperature", "nan"], "finite"),
        (["chat", "--temperature", "-1"], "0<=x"),
        (["chat", "--top-p", "0"], "0<x<=1"),
        (["chat", "--seed", "tuesday"], "--seed"),
        (["chat", "-m", "/no/such/dir"], "does not exist"),
        (["chat", "--tools", "/no/such.json"], "does not exist"),
    ],
)
def test_a_bad_option_is_one_line_that_helps(args, hint, capsys):
    assert main.run(args) == 2
    err = capsys.readouterr().err
    assert hint in err
    assert err.startswith("kimi-local: ")
    assert err.count("\n") == 1


@pytest.fixture
def failing(monkeypatch):
    """Make the `inspect` command raise what the test wants."""

    def install(error: BaseException) -> None:
        def fail() -> None:
            raise error

        command = click.Command("inspect", callback=fail)
        monkeypatch.setattr(main.Commands, "get_command", lambda *_: command)

    return install


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KimiLocalError("x"), 1),
        (CheckpointError("x"), 2),
        (PlacementError("x"), 3),
        (KernelError("x"), 4),
        (OSError(28, "No space left on device", "/somewhere"), 1),
        (BrokenPipeError(), 141),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("x"), 2),
    ],
)
def test_exit_codes(error, code, failing, capsys):
    failing(error)
    assert main.run(["inspect"]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == (0 if code in (130, 141) else 1)
    assert "Traceback" not in err


def test_an_unknown_exception_is_a_bug_and_stays_one(failing):
    failing(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main.run(["inspect"])


def test_an_error_cannot_drive_the_terminal_or_take_two_lines(failing, capsys):
    failing(CheckpointError("tensor \x1b]0;owned\x07 'a\nb' is short"))
    assert main.run(["inspect"]) == 2
    assert capsys.readouterr().err == "kimi-local: tensor 'a b' is short\n"


def test_colour_only_on_a_terminal_and_never_with_no_color(monkeypatch, capsys):
    monkeypatch.setattr("click._compat.isatty", lambda _: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    main.complain("x", 1)
    coloured = capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    main.complain("x", 1)
    plain = capsys.readouterr().err
    assert "\x1b[31m" in coloured
    assert plain == "kimi-local: x\n"


def test_the_version_is_that_of_the_package(monkeypatch, capsys):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.8.7")
    assert main.run(["--version"]) == 0
    assert capsys.readouterr() == ("kimi-local, version 9.8.7\n", "")


def test_a_version_that_nobody_recorded_is_one_line(monkeypatch, capsys):
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert main.run(["--version"]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"kimi-local, version unknown.*\n", out)
    assert err == ""


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(5, "Input/output error"), 129), (BrokenPipeError(), 129)]
)
def test_an_error_in_the_wake_of_a_signal_does_not_hide_it(failing, capsys, error, code):
    def end():
        try:
            raise SystemExit(129)
        finally:
            raise error

    with pytest.raises(type(error)) as wake:
        end()
    failing(wake.value)
    assert main.run(["inspect"]) == code
    assert capsys.readouterr().err == ""


@pytest.fixture
def homeless(home, monkeypatch):
    """A user id that the system does not know, and no HOME."""

    def unknown(_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name)
    with pytest.raises(RuntimeError):
        Path.home()
    return home


def test_without_a_home_what_needs_none_works(homeless, chat, capsys):
    assert main.run(["--help"]) == 0
    assert main.run(["make-tiny", str(homeless / "tiny"), "--layers", "2"]) == 0
    assert main.run(["inspect", str(homeless / "tiny")]) == 0
    assert chat("-p", "hello").out == "You said hello.\n"


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("-c",), "set HOME or XDG_STATE_HOME"),
        (("--session", "s"), "set HOME or XDG_STATE_HOME"),
    ],
)
def test_without_a_home_the_error_says_what_to_set(homeless, chat, args, hint):
    result = chat("-p", "hello", *args)
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(f"this user has no home directory; {hint}\n")
    assert "Traceback" not in result.err


def test_a_home_that_nobody_has_is_one_line(home, chat, monkeypatch):
    monkeypatch.setenv("KIMI_LOCAL_MODEL", "~nobody-of-this-name/x")
    result = chat("-p", "hello", model=False)
    assert result.code == 2
    assert result.err == (
        "kimi-local: KIMI_LOCAL_MODEL: ~nobody-of-this-name/x: no such home directory; "
        "write the path out\n"
    )
    assert chat("-p", "hello").code == 0  # --model wins, and nobody asks the variable


def shell(home: Path, pipeline: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which $CHAT is the command line on the scripted engine."""
    (home / "model").mkdir(exist_ok=True)
    script = f'CHAT="{sys.executable} {FAKE} chat -m {home}/model"\n{pipeline}'
    return subprocess.run(
        ["bash", "-c", script],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_closed_stdout_is_quiet(tmp_path):
    done = shell(tmp_path, "$CHAT -p flood </dev/null | head -c 4; echo ${PIPESTATUS[0]}")
    assert done.stdout == "more141\n"
    assert done.stderr.startswith("model · loaded")
    assert done.stderr.count("\n") == 1


def test_a_closed_stderr_is_quiet(tmp_path):
    done = shell(tmp_path, "$CHAT -p hi </dev/null 2>&1 >/dev/null | exit; echo ${PIPESTATUS[0]}")
    assert done.stdout == "141\n"
    assert done.stderr == ""


def test_no_stdout_and_no_stdin_at_all(tmp_path):
    done = shell(tmp_path, "$CHAT -p hi <&- >&-; echo $? >&2")
    assert done.stderr.splitlines()[1:] == ["0"]


@pytest.mark.parametrize("extra", ["", "--json"])
def test_a_full_disk_is_one_line(tmp_path, extra):
    done = shell(tmp_path, f"$CHAT -p hi {extra} </dev/null >/dev/full; echo $?")
    assert done.stdout == "1\n"
    assert done.stderr.endswith("kimi-local: No space left on device\n")
    assert done.stderr.count("\n") == 2  # and the line that says what was loaded


def test_a_full_disk_is_noticed_even_by_help(tmp_path):
    done = shell(tmp_path, "$CHAT --help >/dev/full; echo $?")
    assert (done.stdout, done.stderr) == ("1\n", "kimi-local: No space left on device\n")


def test_ctrl_c_prints_what_there_is_and_exits_130(tmp_path):
    done = shell(
        tmp_path,
        f"set -m; $CHAT -p 'slow' --instant </dev/null > {tmp_path}/out & p=$!\n"
        f"until grep -q word5 {tmp_path}/out; do sleep 0.05; done; kill -INT $p; wait $p; echo $?",
    )
    assert done.stdout == "130\n"
    assert "Traceback" not in done.stderr


def test_sigterm_exits_143(tmp_path):
    done = shell(
        tmp_path,
        f"$CHAT -p 'slow' --instant </dev/null > {tmp_path}/out & p=$!\n"
        f"until grep -q word5 {tmp_path}/out; do sleep 0.05; done; kill $p; wait $p; echo $?",
    )
    assert done.stdout == "143\n"
    assert "Traceback" not in done.stderr


def test_the_shell_can_complete(tmp_path):
    done = shell(
        tmp_path,
        'COMP_WORDS="kimi-local ch" COMP_CWORD=1 _KIMI_LOCAL_COMPLETE=bash_complete $CHAT',
    )
    assert done.stdout.split() == ["plain,chat"]


def test_the_environment_is_read_by_the_rules_of_xdg():
    found = settings.read({"XDG_STATE_HOME": "relative", "HOME": "/h"})
    assert found.state_dir == Path.home() / ".local/state/kimi-local"
    assert settings.read({"XDG_STATE_HOME": "/s"}).state_dir == Path("/s/kimi-local")
    assert found.model_dir is None
    assert settings.read({"KIMI_LOCAL_MODEL": "/m"}).model_dir == Path("/m")
    assert settings.read({}).colour
    assert not settings.read({"NO_COLOR": "1"}).colour
    assert not settings.read({"TERM": "dumb"}).colour
