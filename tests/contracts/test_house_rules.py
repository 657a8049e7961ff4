"""Rules of the house that no linter knows, each over the repository and over a planted fault."""

import ast
import re
import sys
import tomllib

import pytest

from tests.contracts.files import ROOT, python_files, repository_files, text_of

SHIPPED = ("hybrid", "cli")
MAX_LINES = 420
OTHER_NAMES = {
    "bochscpu_python": "bochscpu",
    "markdown_it_py": "markdown_it",
    "pillow": "PIL",
}  # requirements not imported by their own name
# Somebody's own directories. `/home/me` and the like are placeholders, `../work/x` is relative.
OWN_PATH = re.compile(r"(?<![\w.~/-])/(?:(?:home|Users)/(?!(?:me|you|user)\b)|root/|work/)\w")
UNFINISHED = re.compile("|".join(rf"\b{word}\b" for word in ("TO" + "DO", "FIX" + "ME", "X" * 3)))


def own_paths(root):
    """Lines that name a directory of one machine."""
    return _lines_with(OWN_PATH, root, repository_files(root))


def unfinished(root):
    """Lines of shipped files that promise something for later."""
    return _lines_with(UNFINISHED, root, repository_files(root, *SHIPPED, "bench"))


def long_modules(root):
    """Shipped modules that have grown beyond a page that can be read in one go."""
    paths = python_files(root, *SHIPPED)
    lengths = {path: len((root / path).read_text("utf-8").splitlines()) for path in paths}
    return [
        f"{path} has {n} lines; at most {MAX_LINES}" for path, n in lengths.items() if n > MAX_LINES
    ]


def prints(root):
    """Calls of `print` in the runtime, whatever a `noqa` says: it owns no terminal."""
    return [
        f"{path}:{node.lineno} prints"
        for path in python_files(root, "hybrid")
        for node in ast.walk(_tree(root, path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]


def undeclared(root):
    """Imports that a fresh installation would not have, and requirements that nothing imports."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {
        extra: {_import_name(line) for line in lines}
        for extra, lines in project["optional-dependencies"].items()
    }
    needed = {_import_name(line) for line in project["dependencies"]}
    tested, wanted = extras.pop("test"), set().union(*(extras[e] for e in extras if e != "dev"))
    shipped, others = third_party(root, *SHIPPED), third_party(root, "tests", "bench")
    return [
        *(f"{path} imports {name}; add it to dependencies" for name, path in shipped.items()
          if name not in needed | wanted),
        *(f"{path} imports {name}; add it to the test extra" for name, path in others.items()
          if name not in needed | tested | wanted),
        *(f"hybrid and cli never import the dependency {name}"
          for name in (needed | wanted) - shipped.keys()),
        *(f"the test extra repeats the dependency {name}" for name in needed & tested),
    ]  # fmt: skip


def third_party(root, *folders):
    """Packages from elsewhere that the folders import anywhere, each with one file that does."""
    own = {path.parts[0].removesuffix(".py") for path in python_files(root)}
    own |= {path.stem for path in python_files(root, "bench")}  # scripts import their neighbours
    found = {}
    for path in python_files(root, *folders):
        for name in _imported(_tree(root, path)):
            if name not in own and name not in sys.stdlib_module_names:
                found.setdefault(name, path)
    return found


def _imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
            yield node.args[0].value.partition(".")[0]


def _import_name(requirement):
    name = re.match(r"[\w-]+", requirement)[0].replace("-", "_")
    return OTHER_NAMES.get(name, name)


def _lines_with(pattern, root, paths):
    return [
        f"{path}:{number}: {line.strip()[:120]}"
        for path in paths
        for number, line in enumerate((text_of(root, path) or "").splitlines(), 1)
        if pattern.search(line)
    ]


def _tree(root, path):
    return ast.parse((root / path).read_text("utf-8"))


RULES = [own_paths, unfinished, long_modules, prints, undeclared]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_repository_keeps(rule):
    broken = rule(ROOT)
    assert not broken, "\n".join(broken)


@pytest.fixture
def small_root(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["numpy>=2"]\n\n'
        '[project.optional-dependencies]\ntest = ["pytest>=9"]\n'
    )
    for name, text in {
        "hybrid/a.py": "import os\n\nimport numpy.linalg\n\nimport hybrid.b\nfrom . import b\n",
        "hybrid/b.py": "PATH = '/home/me/model'\nUP = '../work/x'\nblueprint('x')\n",
        "tests/test_a.py": "import pytest\n\nfrom hybrid import a\n",
        "docs/x.md": "from /sys/devices and ~/work/x and https://a.b/work/x\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_an_orderly_tree_passes(rule, small_root):
    assert rule(small_root) == []


@pytest.mark.parametrize(
    ("rule", "file", "text", "seen"),
    [
        (own_paths, "docs/x.md", "run /" + "home/anna/run.sh", "docs/x.md:1"),
        (own_paths, "tests/t.py", "\nP = '/" + "work/data'", "tests/t.py:2"),
        (own_paths, "justfile", "x:\n  cp /" + "root/x .", "justfile:2"),
        (unfinished, "hybrid/c.py", "x = 1  # TO" + "DO: two", "hybrid/c.py:1"),
        (unfinished, "cli/c.txt", "X" * 3, "cli/c.txt:1"),
        (long_modules, "cli/c.py", "x = 1\n" * (MAX_LINES + 1), "cli/c.py has 421 lines"),
        (prints, "hybrid/c.py", "if 1:\n    print('x')  # noqa: T201\n", "hybrid/c.py:2"),
        (
            undeclared,
            "cli/c.py",
            "def f():\n    import rich.table\n",
            "imports rich; add it to dep",
        ),
        (undeclared, "cli/c.py", "from pytest import x\n", "cli/c.py imports pytest"),
        (undeclared, "bench/c.py", "import torch\n", "bench/c.py imports torch; add it to the"),
        (undeclared, "tests/c.py", "pytest.importorskip('tiktoken')\n", "imports tiktoken"),
        (undeclared, "hybrid/a.py", "import os\n", "never import the dependency numpy"),
    ],
)
def test_a_planted_fault_is_seen(rule, file, text, seen, small_root):
    (small_root / file).parent.mkdir(exist_ok=True)
    (small_root / file).write_text(text)
    assert any(seen in line for line in rule(small_root))
