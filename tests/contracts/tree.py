"""The file tree that the README shows, made from the files and their own first lines.

python -m tests.contracts.tree              print it
python -m tests.contracts.tree --write      write it into README.md, under "## The tree"

hybrid/                 first docstring line of hybrid/__init__.py, which has no line of its own
  model.py              first docstring line of the module
  chat/
    parser.py           two spaces deeper for each folder; two or more before the comment
  models/
    nano/               a checkpoint is one thing: the first sentence of its README.md
"""

import ast
import re
import sys
from pathlib import Path

from tests.contracts.files import ROOT, repository_files

FOLDERS = ("hybrid", "cli", "nano", "bench")
CHECKPOINT = "model.safetensors.index.json"  # what tells its folder
HEADING = "## The tree"
BLOCK = re.compile(rf"(^{HEADING}\n(?:(?!#|```).*\n)*```.*\n)((?:(?!```).*\n)*)(```)", re.M)
LINE = re.compile(r"(?P<indent> *)(?P<name>\S+?)(?P<folder>/?)(?: {2,}(?P<comment>.*\S))? *")
INDENT = "  "


def tree(root: Path = ROOT) -> dict[str, str]:
    """Every file of FOLDERS and every folder, with its comment: "hybrid/model.py" -> "The …"."""
    entries: dict[str, str] = {}
    for path in repository_files(root, *FOLDERS):
        if (root / path).with_name(CHECKPOINT).exists():
            entries[f"{path.parent.as_posix()}/"] = _card(root / path.parent)
            continue
        for folder in reversed(path.parents[:-1]):
            entries.setdefault(f"{folder.as_posix()}/", _first_line(root / folder / "__init__.py"))
        if path.name != "__init__.py":
            entries[path.as_posix()] = _first_line(root / path)
    return dict(sorted(entries.items(), key=lambda entry: _place(entry[0])))


def render(entries: dict[str, str]) -> str:
    """The lines of the block, comments in one column."""
    lines = [
        (INDENT * name.rstrip("/").count("/") + _last(name), entries[name]) for name in entries
    ]
    width = max(len(left) for left, _ in lines)
    return "".join(f"{left:{width}}  {comment}".rstrip() + "\n" for left, comment in lines)


def shown_tree(readme: str) -> dict[str, str]:
    """What a README's block says, in the form of `tree`; ValueError for a line that is none."""
    match = BLOCK.search(readme)
    if match is None:
        raise ValueError(f"the README has no fenced block under {HEADING!r}")
    entries: dict[str, str] = {}
    above: list[str] = []
    for line in match[2].splitlines():
        part = LINE.fullmatch(line)
        depth, left = divmod(len(part["indent"]), len(INDENT)) if part else (0, 1)
        if part is None or left or depth > len(above):
            raise ValueError(f"not a line of the tree: {line!r}")
        name = "/".join([*above[:depth], part["name"]]) + part["folder"]
        above[depth:] = [part["name"]]
        entries[name] = part["comment"] or ""
    return entries


def with_tree(readme: str, block: str) -> str:
    """The README with its block replaced; ValueError if it has none."""
    text, count = BLOCK.subn(lambda match: match[1] + block + match[3], readme)
    if count != 1:
        raise ValueError(f"the README has {count} fenced blocks under {HEADING!r}; it needs one")
    return text


def _first_line(path: Path) -> str:
    """What a file says it is: the docstring's first line, or a template's opening comment."""
    text = path.read_text("utf-8") if path.exists() else ""
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    opening = re.match(r"\{#-?\s*(.*?)\s*(?:-?#\})?$", text, re.M)
    return opening[1] if opening else ""


def _card(folder: Path) -> str:
    """The first line below the heading of a model card."""
    lines = (folder / "README.md").read_text("utf-8").splitlines()
    return next(line for line in lines[1:] if line)


def _last(name: str) -> str:
    return Path(name).name + ("/" if name.endswith("/") else "")


def _place(name: str) -> tuple[object, ...]:
    """FOLDERS in their order; in each, files before folders, by name."""
    top, *parts = name.rstrip("/").split("/")
    kinds = [True] * len(parts[:-1]) + [name.endswith("/")]
    return FOLDERS.index(top), [*zip(kinds, parts, strict=False)]


def main(arguments: list[str], root: Path = ROOT) -> None:
    """Print the tree, or with --write put it into the README."""
    block = render(tree(root))
    if arguments == ["--write"]:
        readme = root / "README.md"
        readme.write_text(with_tree(readme.read_text("utf-8"), block), "utf-8")
    elif arguments:
        sys.exit(f"unknown arguments {' '.join(arguments)}; give --write or nothing")
    else:
        sys.stdout.write(block)


if __name__ == "__main__":
    main(sys.argv[1:])
