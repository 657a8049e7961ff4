"""Python and packages: the list is that of pyproject.toml, and every kind of fault is seen."""

import re
import tomllib

import pytest

from hybrid.doctor import software
from hybrid.doctor.software import REQUIRED, installed_version, satisfies
from tests.contracts.files import ROOT


def test_the_list_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    split = (re.match(r"([\w-]+)(.*)", line).groups() for line in project["dependencies"])
    assert dict(split) == REQUIRED
    assert project["requires-python"] == ">=" + ".".join(map(str, software.PYTHON))


def test_this_environment_is_in_order():
    assert software.python().ok
    assert software.packages().ok


@pytest.mark.parametrize(
    ("version", "ok"), [("3.11.0", True), ("3.14.1+x", True), ("3.9.2", False)]
)
def test_python(version, ok):
    check = software.python(version)
    assert check.ok is ok
    assert bool(check.fix) is not ok


@pytest.mark.parametrize(
    ("version", "wanted", "ok"),
    [
        ("2.13.0+cpu", "~=2.13.0", True),
        ("2.13.7", "~=2.13.0", True),
        ("2.14.0", "~=2.13.0", False),
        ("2.12.9", "~=2.13.0", False),
        ("2.5.1", ">=2.1,<2.6", True),
        ("2.6.0", ">=2.1,<2.6", False),
        ("2.0", ">=2.1,<2.6", False),
        ("10.0", ">=9.1", True),  # numbers, not text
        ("14", ">=14", True),
        ("", ">=1", False),
        ("unknown", ">=1", False),
    ],
)
def test_ranges(version, wanted, ok):
    assert satisfies(version, wanted) is ok


@pytest.mark.parametrize(
    ("package", "version", "found"),
    [("torch", "2.12.0", "torch 2.12.0"), ("xxhash", None, "xxhash is missing")],
)
def test_a_wrong_package_is_named_with_its_range(package, version, found):
    def installed(name):
        return version if name == package else installed_version(name)

    check = software.packages(installed)
    assert (check.ok, check.found) == (False, found)
    assert check.fix == f"pip install '{package}{REQUIRED[package]}'"
