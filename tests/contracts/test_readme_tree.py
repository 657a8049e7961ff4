"""The README's file tree shows every file, no other, and each under its own first line."""

import shutil
import subprocess
import sys

import pytest

from tests.contracts.files import ROOT, repository_files
from tests.contracts.tree import main, render, shown_tree, tree, with_tree

FRAME = "# x\n\n## The tree\n\nEvery file:\n\n```text\n```\n\n## Limits\n\n```\nnot this\n```\n"
REFRESH = "refresh it: python -m tests.contracts.tree --write"


def faults(readme, root):
    """What is wrong with a README's tree, a line each."""
    shown, real = shown_tree(readme), tree(root)
    return [
        *(f"{name} is not in the tree" for name in real if name not in shown),
        *(f"{name} is in the tree but not there" for name in shown if name not in real),
        *(
            f"{name} says {real[name]!r}, the tree {shown[name]!r}"
            for name in real
            if name in shown and shown[name] != real[name]
        ),
    ]


@pytest.fixture
def small_root(tmp_path):
    for name, text in {
        "hybrid/__init__.py": '"""The runtime."""\n',
        "hybrid/model.py": '"""The forward pass.\n\nLonger.\n"""\n',
        "hybrid/chat/__init__.py": '"""Text: in and out."""\n',
        "hybrid/chat/t.jinja": "{#- The grammar. -#}\n",
        "hybrid/py.typed": "",
        "hybrid/nano/README.md": "# nano\n\nA model.\nSmall.\n",
        "hybrid/nano/model.safetensors.index.json": "{}",
        "cli/main.py": '"""Commands."""\n',
        "cli/__pycache__/main.pyc": "",
        "bench/speed.py": '"""How fast."""\n',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_readme_tree_is_true():
    wrong = faults((ROOT / "README.md").read_text("utf-8"), ROOT)
    assert not wrong, "\n".join([REFRESH, *wrong])


def test_every_module_says_what_it_is():
    silent = [name for name, comment in tree().items() if not comment and name.endswith(".py")]
    assert not silent


def test_the_printed_tree(small_root):
    assert render(tree(small_root)).splitlines() == [
        "hybrid/      The runtime.",
        "  model.py   The forward pass.",
        "  py.typed",
        "  chat/      Text: in and out.",
        "    t.jinja  The grammar.",
        "  nano/      A model.",
        "cli/",
        "  main.py    Commands.",
        "bench/",
        "  speed.py   How fast.",
    ]


def test_a_refreshed_readme_is_true_and_otherwise_unchanged(small_root):
    (small_root / "README.md").write_text(FRAME)
    main(["--write"], small_root)
    readme = (small_root / "README.md").read_text()
    assert faults(readme, small_root) == []
    assert with_tree(readme, "") == FRAME


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (lambda root: (root / "hybrid/new.py").write_text('"""New."""'), "hybrid/new.py is not in"),
        (lambda root: (root / "cli/main.py").unlink(), "cli/main.py is in the tree but not there"),
        (lambda root: (root / "hybrid/model.py").write_text('"""Other."""'), "says 'Other.'"),
        (lambda root: shutil.rmtree(root / "hybrid/chat"), "hybrid/chat/ is in the tree but"),
    ],
    ids=["file added", "file gone", "docstring changed", "folder gone"],
)
def test_a_planted_fault_is_seen(fault, seen, small_root):
    readme = with_tree(FRAME, render(tree(small_root)))
    fault(small_root)
    assert any(seen in line for line in faults(readme, small_root))


def test_a_readme_without_the_block_is_refused():
    with pytest.raises(ValueError, match="no fenced block"):
        shown_tree("# x\n\n## The tree\n\n## Limits\n\n```\nnot this\n```\n")
    with pytest.raises(ValueError, match="not a line of the tree"):
        shown_tree("## The tree\n\n```\nhybrid/\n     model.py  x\n```\n")


def test_git_and_a_walk_find_the_same(small_root, monkeypatch):
    walked = repository_files(small_root, "hybrid", "cli", "bench")
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    subprocess.run([git, "init", "-q"], cwd=small_root, check=True)
    (small_root / ".gitignore").write_text("__pycache__/\n")
    assert repository_files(small_root, "hybrid", "cli", "bench") == walked
    assert len(walked) == 9


def test_the_command_prints_the_tree():
    command = [sys.executable, "-m", "tests.contracts.tree"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout == render(tree())
