"""Which files make up the repository: what git does not ignore, or without git all there is."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = {"__pycache__", "dist", "node_modules"}  # build output; hidden folders are skipped too


def repository_files(root: Path, *folders: str) -> list[Path]:
    """Files of `folders` (or of everything) that git does not ignore: sorted, relative to root."""
    found = _asked_of_git(root, folders)
    if found is None:
        found = set(_walked(root, folders or (".",)))
    return sorted(path for path in found if (root / path).is_file())


def python_files(root: Path, *folders: str) -> list[Path]:
    """The Python files among them."""
    return [path for path in repository_files(root, *folders) if path.suffix == ".py"]


def text_of(root: Path, path: Path) -> str | None:
    """The file's text; None where it is not UTF-8."""
    try:
        return (root / path).read_text("utf-8")
    except UnicodeDecodeError:
        return None


def _asked_of_git(root: Path, folders: tuple[str, ...]) -> set[Path] | None:
    """None where git or the repository is missing, as in an unpacked archive."""
    if not (root / ".git").exists():  # or git would answer for a repository further up
        return None
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    try:
        answer = subprocess.run([*command, *folders], cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return {Path(os.fsdecode(name)) for name in answer.stdout.split(b"\0") if name}


def _walked(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    for folder in folders:
        for directory, names, files in os.walk(root / folder):
            names[:] = [n for n in names if n not in NOT_OURS and not n.startswith(".")]
            names[:] = [n for n in names if not n.endswith(".egg-info")]
            names[:] = [n for n in names if not (Path(directory) / n / "pyvenv.cfg").exists()]
            yield from (Path(directory, name).relative_to(root) for name in files)
