"""What code and documents point at exists: sections of the two documents, files of the repository.

"spec §3.2" means docs/model.md, "design §4" means docs/design.md; "§5.1-5.6" and "§1.1, §7" cite
both ends. Headings there begin with their number: "## 3. Mathematics", "### 3.2 Attention".
"""

import re
from pathlib import Path

import pytest

from tests.contracts.files import ROOT, python_files, repository_files, text_of

DOCUMENTS = {"spec": Path("docs/model.md"), "design": Path("docs/design.md")}
CODE = ("hybrid", "cli", "nano", "tests", "bench")
NUMBER = r"\d+(?:\.\d+)*"
CITATION = re.compile(
    rf"\b(spec|design)\s+(?:#\s+)?(§{NUMBER}(?:\s*[-–]\s*§?{NUMBER}|(?:,|/|\s+and)\s*§{NUMBER})*)",
    re.I,
)
HEADING = re.compile(rf"^#+ +({NUMBER})\.? ", re.M)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
CODE_SPAN = re.compile(r"`([^`\n]+)`")


def cited(text):
    """(document, section) of every citation in a text."""
    return {
        (match[1].lower(), number)
        for match in CITATION.finditer(text)
        for number in re.findall(NUMBER, match[2])
    }


def unresolved(root):
    """Citations that lead nowhere, a line each."""
    sections = {
        name: set(HEADING.findall((root / path).read_text("utf-8")))
        for name, path in DOCUMENTS.items()
    }
    return [
        f"{path} cites {document} §{section}, which {DOCUMENTS[document]} does not have"
        for path in (*python_files(root, *CODE), *DOCUMENTS.values())
        for document, section in sorted(cited(text_of(root, path) or ""))
        if section not in sections[document]
    ]


def broken_paths(root):
    """Links and paths in code spans of documents that name no file or folder, a line each."""
    documents = [path for path in repository_files(root) if path.suffix == ".md"]
    broken = []
    for path in documents:
        text = (root / path).read_text("utf-8")
        links = ((root / path).parent / link for link in LINK.findall(text))
        spans = (root / span for span in CODE_SPAN.findall(text) if _is_path(span))
        broken += [f"{path} names {_shown(p, root)}" for p in (*links, *spans) if not p.exists()]
    return broken


def _is_path(span):
    """Whether a code span is a path from the root of the repository."""
    return re.fullmatch(r"(?:docs|tests|hybrid|cli|bench)/[\w./-]*", span) is not None


def _shown(path, root):
    return path.relative_to(root) if path.is_relative_to(root) else path


@pytest.fixture
def small_root(tmp_path):
    for name, text in {
        "docs/model.md": "# The spec\n\n## 1. Config\n\n### 1.2 Text\n\n### 1.3 Packing\n",
        "docs/design.md": "# Design\n\n## 3. The record\n\nSee [it](model.md) and `hybrid/a.py`.\n",
        "hybrid/a.py": '"""Spec §1.2-1.3 (and arXiv, §9); design §3."""\n',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_every_citation_resolves():
    assert not unresolved(ROOT), "\n".join(unresolved(ROOT))


def test_every_path_in_the_documents_exists():
    assert not broken_paths(ROOT), "\n".join(broken_paths(ROOT))


def test_the_code_does_cite():
    """The pattern finds what is there: without this, one that finds nothing would pass."""
    found = set().union(*(cited(text_of(ROOT, path) or "") for path in python_files(ROOT, *CODE)))
    assert {("spec", "3.2"), ("spec", "5.7"), ("spec", "7")} <= found


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("(spec §3.2).", {("spec", "3.2")}),
        ("Spec §5.1-5.6", {("spec", "5.1"), ("spec", "5.6")}),
        ("spec §1.1, §7 and 3 more", {("spec", "1.1"), ("spec", "7")}),
        ("design §3/§4", {("design", "3"), ("design", "4")}),
        ("spec\n    §2.4, 16 rows", {("spec", "2.4")}),
        ("DeepSeek-V2, §2.1; inspect §3", set()),
    ],
)
def test_how_a_citation_is_read(text, sections):
    assert cited(text) == sections


@pytest.mark.parametrize(
    ("file", "text", "seen"),
    [
        ("hybrid/a.py", '"""See spec §1.4."""\n', "cites spec §1.4"),
        ("hybrid/a.py", "x = 1  # design §4\n", "cites design §4"),
        ("docs/model.md", "## 1. Config\n\n### 1.2 Text\n", "cites spec §1.3"),
    ],
)
def test_a_planted_citation_is_seen(file, text, seen, small_root):
    assert unresolved(small_root) == []
    (small_root / file).write_text(text)
    assert any(seen in line for line in unresolved(small_root))


@pytest.mark.parametrize("text", ["[gone](gone.md)", "`hybrid/gone.py`", "`hybrid/gone/`"])
def test_a_planted_path_is_seen(text, small_root):
    assert broken_paths(small_root) == []
    (small_root / "docs/design.md").write_text(text)
    assert "gone" in broken_paths(small_root)[0]
