"""Python, and the packages that kimi-local runs with, in versions that it was tested with."""

import importlib.metadata
import platform
import re
from collections.abc import Callable

from hybrid.doctor.check import Check, bad, good

PYTHON = (3, 11)
REQUIRED = {  # as pyproject.toml says; a test compares them
    "torch": "~=2.13.0",
    "numpy": ">=2.1,<2.6",
    "numba": ">=0.65,<0.70",
    "llvmlite": ">=0.47",
    "psutil": ">=6",
    "tokenizers": ">=0.21",
    "pillow": ">=11.3",
    "jinja2": ">=3.1.6",
    "click": ">=8.4",
    "rich": ">=14",
    "markdown-it-py": ">=3",
    "prompt_toolkit": ">=3.0.50",
    "xxhash": ">=3.5",
}
Version = tuple[int, ...]
Installed = Callable[[str], str | None]  # a package's version, None if it is not there


def python(version: str = platform.python_version()) -> Check:
    """The interpreter that runs this."""
    wanted = ".".join(map(str, PYTHON))
    if _release(version) < PYTHON:
        return bad("Python", version, f"install Python {wanted} or newer")
    return good("Python", version)


def installed_version(package: str) -> str | None:
    """Of a package in this environment."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages(installed: Installed = installed_version) -> Check:
    """Every package of the list, in a version of its range."""
    wrong = {
        package: version
        for package, wanted in REQUIRED.items()
        if not satisfies(version := installed(package) or "", wanted)
    }
    if not wrong:
        return good("packages", f"torch {installed('torch')}, numba {installed('numba')}, all here")
    found = ", ".join(f"{name} {version or 'is missing'}" for name, version in wrong.items())
    wanted = " ".join(f"'{name}{REQUIRED[name]}'" for name in wrong)
    return bad("packages", found, f"pip install {wanted}")


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version, "" for none, is in a range such as ">=2.1,<2.6" or "~=2.13.0"."""
    have = _release(version)
    return bool(have) and all(_holds(have, clause) for clause in wanted.split(","))


def _holds(have: Version, clause: str) -> bool:
    operator, limit = clause[: clause.index("=") + 1] if "=" in clause else clause[0], ""
    limit = clause[len(operator) :]
    want = _release(limit)
    if operator == "~=":
        return have >= want and have[: len(want) - 1] == want[:-1]
    return have >= want if operator == ">=" else have < want


def _release(version: str) -> Version:
    """The numbers at the start of "2.13.0+cpu"."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
