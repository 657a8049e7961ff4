"""Paths in what was typed: found in every spelling, and never where there is no such file."""

import os
from pathlib import Path

import pytest

from cli import dropped_paths
from cli.dropped_paths import argument_paths, mentions, names_media, without_paths
from tests.cli.fake_engine import MP4, PNG


@pytest.fixture
def pics(tmp_path, monkeypatch):
    """A home, which is also the working directory, with a few files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my pics").mkdir()
    for name in ("a.png", "b.JPG", "clip.mp4", "it's.png", "my pics/board one.png", "x (1).png"):
        (tmp_path / name).write_bytes(b"content is looked at only where the suffix says nothing")
    (tmp_path / "notes.txt").write_text("BM is how this text begins")
    (tmp_path / "shot").write_bytes(PNG)
    (tmp_path / "film.dat").write_bytes(MP4)
    (tmp_path / "dir.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    return tmp_path


def found(text: str) -> list[tuple[str, str]]:
    return [(mention.kind, mention.path.name) for mention in mentions(text)]


BOARD, A = ("image", "board one.png"), ("image", "a.png")


@pytest.mark.parametrize(
    ("typed", "files", "words"),
    [
        ("{0}/a.png", [A], ""),
        (" {0}/a.png \n", [A], ""),
        ("'{0}/a.png'", [A], ""),
        ('"{0}/a.png" ', [A], ""),
        ("file://{0}/a.png", [A], ""),
        ("file://localhost{0}/a.png", [A], ""),
        ("file://{0}/my%20pics/board%20one.png", [BOARD], ""),
        ("'{0}/my pics/board one.png'", [BOARD], ""),
        (r"{0}/my\ pics/board\ one.png", [BOARD], ""),
        ("{0}/my pics/board one.png", [BOARD], ""),
        (r"'{0}/it'\''s.png'", [("image", "it's.png")], ""),
        ("{0}/it's.png", [("image", "it's.png")], ""),
        ("{0}/x (1).png", [("image", "x (1).png")], ""),
        (r"{0}/x\ \(1\).png", [("image", "x (1).png")], ""),
        ("~/a.png", [A], ""),
        ("./a.png", [A], ""),
        ("my pics/board one.png", [], None),
        ("'my pics/board one.png'", [BOARD], ""),
        ("{0}/shot", [("image", "shot")], ""),
        ("{0}/film.dat", [("video", "film.dat")], ""),
        ("{0}/a.png {0}/clip.mp4", [A, ("video", "clip.mp4")], ""),
        ("what is in ~/b.JPG ?", [("image", "b.JPG")], "what is in b.JPG ?"),
        ("what is in ~/b.JPG?", [("image", "b.JPG")], "what is in b.JPG?"),
        ("what's in '{0}/a.png', isn't it", [A], "what's in a.png, isn't it"),
        ("(see {0}/a.png)", [A], "(see a.png)"),
        ("(~/a.png) or [~/clip.mp4]", [A, ("video", "clip.mp4")], "(a.png) or [clip.mp4]"),
        ('he said "~/a.png is nice"', [A], 'he said "a.png is nice"'),
        ("~/a.png and\n~/my pics/board one.png!", [A, BOARD], "a.png and\nboard one.png!"),
    ],
)
def test_a_path_is_found_in_any_spelling(pics, typed, files, words):
    text = typed.replace("{0}", str(pics))
    assert found(text) == files
    if words is not None:
        assert without_paths(text, mentions(text)) == words


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "a.png",  # a bare name is a word
        "this and/or that, 1/2, https://example.org/a.png, 24/7",
        "~/missing.png",
        "~/dir.png",
        "~/pipe.png",
        "~/notes.txt",
        "~nobody-of-this-name/a.png",
        "/etc/passwd",
        "/dev/zero /proc/self/environ /dev/stdin",
        "file://elsewhere.example/a.png",
        "file://[/a.png",
        "/a\0b.png",
        "/\udcff.png",
        "/" + "x" * 5000 + ".png",
        "'/a.png \\",
    ],
)
def test_what_names_no_picture_stays_text(pics, typed):
    assert mentions(typed) == []
    assert without_paths(typed, []) == typed.strip()


@pytest.fixture
def asked(monkeypatch):
    """The paths that the disk, which has none of them, is asked for."""
    paths = []

    def stat(path):
        paths.append(path)
        raise FileNotFoundError

    monkeypatch.setattr(dropped_paths.Path, "stat", stat)
    return paths


def test_a_long_text_asks_the_disk_a_bounded_number_of_times(pics, asked):
    assert mentions("/usr/bin/x.png and more.png " * 100_000) == []
    assert 0 < len(asked) <= 12 * dropped_paths._MOST_TRIED


def test_the_bound_check_sees_a_search_without_one(pics, asked):
    """Planted: every word is tried."""
    bound, dropped_paths._MOST_TRIED = dropped_paths._MOST_TRIED, 10**9
    try:
        mentions("/usr/bin/x.png " * 1000)
    finally:
        dropped_paths._MOST_TRIED = bound
    assert len(asked) > 12 * bound


def test_names_that_could_drive_a_terminal_are_not_repeated(pics):
    (pics / "x\x1b]0;owned\x07.png").write_bytes(PNG)
    text = f"see {pics}/x\x1b]0;owned\x07.png now"
    assert without_paths(text, mentions(text)) == "see x.png now"


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("a.png", ["a.png"]),
        ("my pics/board one.png", ["board one.png"]),
        ("'my pics/board one.png'", ["board one.png"]),
        (r"my\ pics/board\ one.png", ["board one.png"]),
        ("it's.png", ["it's.png"]),
        ("~/a.png", ["a.png"]),
        ("a.png 'my pics/board one.png'", ["a.png", "board one.png"]),
        ("a.png missing.png", ["a.png missing.png"]),
        ("missing's.png", ["missing's.png"]),
    ],
)
def test_the_argument_of_a_command(pics, argument, names):
    assert [path.name for path in argument_paths(argument)] == names


def test_a_file_url_as_an_argument(pics):
    url = (pics / "my pics/board one.png").as_uri()
    assert argument_paths(url) == [pics / "my pics/board one.png"]


def test_suffixes():
    assert names_media("/board.PNG")
    assert not names_media("/help")
    assert not names_media(str(Path("/x.txt")))
