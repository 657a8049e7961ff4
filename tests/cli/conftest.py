"""The command line on a scripted engine, in this process and on the user's own files."""

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import hybrid
from cli import main
from tests.cli import fake_engine


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A private home: no test reads or writes the user's files."""
    for name, value in {
        "HOME": tmp_path,
        "XDG_STATE_HOME": tmp_path / "state",
        "XDG_CACHE_HOME": tmp_path / "cache",
    }.items():
        monkeypatch.setenv(name, str(value))
    for name in ("KIMI_LOCAL_MODEL", "NO_COLOR", "_KIMI_LOCAL_COMPLETE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "model").mkdir()
    return tmp_path


@pytest.fixture
def engines(monkeypatch):
    """Engines made by hybrid.load, latest last."""
    made = []

    def load(*args, **options):
        made.append(fake_engine.load(*args, **options))
        return made[-1]

    monkeypatch.setattr(hybrid, "load", load, raising=False)
    return made


@pytest.fixture
def chat(home, engines, monkeypatch, capsys):
    """Run `kimi-local chat` with these arguments and standard input."""

    def run(*args: str, stdin: bytes = b"", model: bool = True) -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        named = ("-m", str(home / "model")) if model else ()
        capsys.readouterr()
        code = main.run(["chat", *named, *args])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def repo() -> Path:
    """The repository root."""
    return Path(__file__).parents[2]
