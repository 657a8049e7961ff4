"""Linters, type checker and import contracts, so that one command checks everything.

They come with the `dev` extra. Where one is missing its test is skipped and says so.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.files import ROOT

TOOLS = {
    "ruff check": ["ruff", "check", "--no-cache"],
    "ruff format": ["ruff", "format", "--no-cache", "--check"],
    "mypy": ["mypy"],
    "import contracts": ["lint-imports"],
}


def run(tool, root):
    """Exit status and all output of a tool in a tree; skips if it is not installed."""
    name, *options = TOOLS[tool]
    program = shutil.which(name, path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip(f"{name} is not installed beside {sys.executable}; pip install '.[dev]' has it")
    command = [program, *options]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_the_repository_passes(tool):
    status, output = run(tool, ROOT)
    assert status == 0, output


@pytest.fixture
def small_root(tmp_path):
    """Our settings over a tree of few files, with a contract of two layers."""
    settings, _, contracts = (ROOT / "pyproject.toml").read_text("utf-8").partition("[[tool.import")
    assert contracts
    (tmp_path / "pyproject.toml").write_text(
        settings + '[[tool.importlinter.contracts]]\nname = "cli above hybrid"\n'
        'type = "layers"\nlayers = ["cli", "hybrid"]\n'
    )
    for package in ("hybrid", "cli", "nano"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text('"""A package."""\n')
    (tmp_path / "hybrid/a.py").write_text('"""A module."""\n\nLIMIT = 3\n')
    return tmp_path


@pytest.mark.parametrize(
    ("tool", "text", "seen"),
    [
        ("ruff check", '"""A module."""\n\nimport os\n', "F401"),
        ("ruff format", '"""A module."""\n\nLIMIT  =  3\n', "reformat"),
        ("mypy", '"""A module."""\n\nLIMIT: str = 3\n', "Incompatible types"),
        ("import contracts", '"""A module."""\n\nimport cli\n\nX = cli\n', "BROKEN"),
    ],
    ids=TOOLS,
)
def test_a_planted_fault_is_seen(tool, text, seen, small_root):
    assert run(tool, small_root)[0] == 0
    (small_root / "hybrid/a.py").write_text(text)
    status, output = run(tool, small_root)
    assert status != 0
    assert seen in output
