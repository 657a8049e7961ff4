"""What URLs and names may reach: hostile ones meet one line of RequestError, never a file."""

import base64
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from hybrid.errors import RequestError
from hybrid.vision import source
from hybrid.vision.source import read_file, read_url

PARAM = "messages[0].content[0].image_url"
SECRET = b"secret"
BYTES = bytes(range(256))
CODED = base64.b64encode(BYTES).decode()


@pytest.fixture
def root(tmp_path):
    """The directory that is open, beside one that is not; links lead in, out and round."""
    opened = tmp_path / "open"
    (opened / "inner").mkdir(parents=True)
    (opened / "a b%20.png").write_bytes(b"odd")
    (opened / "x.png").write_bytes(b"x")
    (opened / "inner" / "y.png").write_bytes(b"y")
    (opened / "bei spiel.png").write_bytes(b"blank")
    (opened / "in.png").symlink_to("inner/y.png")
    (opened / "out.png").symlink_to("../secret.png")
    (opened / "up").symlink_to("..")
    (opened / "round").symlink_to("round")
    (opened / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "secret.png").write_bytes(SECRET)
    (tmp_path / "open-too").mkdir()
    (tmp_path / "open-too" / "z.png").write_bytes(SECRET)
    return opened


def refused(call, match):
    with pytest.raises(RequestError, match=match) as caught:
        call()
    assert caught.value.param == PARAM
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 250


DATA = {
    "base64": (f"data:image/png;base64,{CODED}", BYTES),
    "capitals": (f"DATA:image/png;BASE64,{CODED}", BYTES),
    "no type": (f"data:;base64,{CODED}", BYTES),
    "parameters": (f"data:image/png;name=a;base64,{CODED}", BYTES),
    "lines": ("data:;base64," + "\r\n".join(CODED[i : i + 76] for i in range(0, 344, 76)), BYTES),
    "blanks": (f"data:;base64, {CODED[:8]}\t{CODED[8:]} ", BYTES),
    "percent in base64": (f"data:;base64,{CODED.replace('/', '%2F').replace('=', '%3d')}", BYTES),
    "percent": ("data:,%00a%ffb,c", b"\0a\xffb,c"),
    "percent of another kind": ("data:text/plain,100%", b"100%"),
    "nothing": ("data:,", b""),
    "nothing in base64": ("data:;base64,", b""),
    "characters": ("data:,é", "é".encode()),
}


@pytest.mark.parametrize("case", DATA)
@pytest.mark.parametrize("anywhere", [True, False])
def test_data_urls(case, anywhere, tmp_path):
    url, content = DATA[case]
    assert read_url(url, tmp_path if anywhere else None, PARAM) == content


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("data:", "no comma"),
        ("data:image/png;base64", "no comma"),
        ("data:;base64,A", "not base64"),
        ("data:;base64,AAA", "not base64: Incorrect padding"),
        ("data:;base64,AA=A", "not base64"),
        ("data:;base64,AA*A", "not base64"),
        ("data:;base64,AA-_", "not base64"),  # the alphabet for URLs is another one
        ("data:;base64,éAAA", "not base64"),
        ("data:;base64,%zzAA", "not base64"),
        ("data:;base64,\ud800AAA", "not base64"),
        ("data:,\ud800", "the data: URL is not text"),
        ("data:;base64,AA\0A", "not base64"),
    ],
)
def test_bad_data_urls(url, match):
    refused(lambda: read_url(url, None, PARAM), match)


def test_a_huge_data_url_is_not_decoded(monkeypatch):
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 50)
    assert read_url("data:," + "a" * 100, None, PARAM) == b"a" * 100
    monkeypatch.setattr(source.base64, "b64decode", lambda *_, **__: pytest.fail("decoded"))
    for head in ("data:,", "data:;base64,"):
        refused(lambda head=head: read_url(head + "a" * 101, None, PARAM), "has 101 characters")


@pytest.mark.parametrize(
    ("url", "content"),
    [
        ("x.png", b"x"),
        ("./inner/../x.png", b"x"),
        ("inner/y.png", b"y"),
        ("in.png", b"y"),
        ("a b%20.png", b"odd"),  # a name is not decoded, a URL is
        ("file:x.png", b"x"),
        ("file:bei%20spiel.png", b"blank"),
        ("FILE:x.png", b"x"),
        ("{root}/x.png", b"x"),
        ("file://{root}/x.png", b"x"),
        ("file://{root}/inner/%79.png", b"y"),
        ("file://localhost{root}/x.png", b"x"),
        ("../open/x.png", b"x"),
        ("up/open/x.png", b"x"),
    ],
)
def test_files_under_the_root(root, url, content):
    assert read_url(url.format(root=root), root, PARAM) == content


@pytest.mark.parametrize(
    "url",
    [
        "../secret.png",
        "inner/../../secret.png",
        "{parent}/secret.png",
        "//{parent}/secret.png",
        "file://{parent}/secret.png",
        "file:{parent}/secret.png",
        "file:../secret.png",
        "file:%2e%2e/secret.png",
        "file:%2e%2e%2fsecret.png",
        "file:inner/..%2F..%2fsecret.png",
        "file://{root}/../secret.png",
        "file://{root}/%2E%2E/secret.png",
        "{root}-too/z.png",
        "../open-too/z.png",
        "out.png",
        "up/secret.png",
        "inner/../up/secret.png",
        "/etc/passwd",
        "file:///etc/passwd",
        "/proc/self/environ",
        "..",
    ],
)
def test_nothing_outside_the_root_is_read(root, url):
    url = url.format(root=root, parent=root.parent)
    refused(lambda: read_url(url, root, PARAM), "lies outside the directory allowed for files")


def test_a_check_of_the_name_alone_would_be_seen(root, monkeypatch):
    """Without resolving links and dots, a secret comes out."""
    monkeypatch.setattr(source.Path, "resolve", lambda self: self)
    assert read_url("out.png", root, PARAM) == SECRET
    assert read_url("inner/../../secret.png", root, PARAM) == SECRET


@pytest.mark.parametrize(
    "host", ["example.org", "127.0.0.1", "localhost.example.org", "a@b", "[::1]"]
)
def test_a_file_of_another_host_is_not_looked_for_here(root, host):
    refused(lambda: read_url(f"file://{host}{root}/x.png", root, PARAM), "names another host")


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("nothing.png", "No such file"),
        ("x.png/y.png", "Not a directory"),
        ("", "is not a file"),
        (".", "is not a file"),
        ("inner", "is not a file"),
        ("gone.png", "No such file"),
        ("round", "."),
        ("round/x.png", "."),
        ("x.png\0", "is not a file name"),
        ("file:x.png%00", "is not a file name"),
        ("file://[/x.png", "is not a file name"),
        ("\ud800.png", "is not a file name"),
        ("a" * 300, "File name too long"),
        ("a/" * 3000, "File name too long|No such file"),
        ("a\nb\x1b[31m.png", "No such file"),
    ],
)
def test_what_is_no_file_is_one_line(root, url, match):
    refused(lambda: read_url(url, root, PARAM), match)


@pytest.mark.parametrize("url", ["x.png", "file:x.png", "{root}/x.png", "../secret.png", ""])
def test_without_a_root_no_name_is_tried(root, url, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setattr(source, "read_file", lambda *_: pytest.fail("tried"))
    url = url.format(root=root)
    refused(lambda: read_url(url, None, PARAM), "names a file, which is not allowed here")


@pytest.mark.parametrize("anywhere", [True, False])
@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("http://169.254.169.254/x.png", "on a network"),
        ("HTTPS://example.org/x.png", "on a network"),
        ("ftp://example.org/x.png", "on a network"),
        ("https:x.png", "on a network"),
        ("s3://bucket/x.png", "not a data: URL or a file"),
        ("javascript:alert(1)", "not a data: URL or a file"),
        (" file:x.png", "not a data: URL or a file"),
        ("pipe:0", "not a data: URL or a file"),
        (":x.png", "."),
    ],
)
def test_other_schemes_are_refused(root, url, match, anywhere):
    refused(lambda: read_url(url, root if anywhere else None, PARAM), match)


@pytest.mark.skipif(sys.platform != "linux", reason="makes a FIFO and reads /dev")
@pytest.mark.parametrize("kind", ["fifo", "device", "socket"])
def test_what_is_not_a_regular_file_is_not_opened(root, kind):
    path = root / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        os.mknod(path, 0o140600)
    refused(lambda: read_file(path, PARAM), "is not a file")
    if kind != "device":
        refused(lambda: read_url(kind, root, PARAM), "is not a file")


def test_a_file_larger_than_allowed_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(b"abc")
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 2)
    monkeypatch.setattr(os, "fdopen", unread)
    refused(lambda: read_file(path, PARAM), "at most 0.0 GB are read")


@contextmanager
def unread(descriptor, mode):
    """An open file whose content nobody may ask for."""
    yield SimpleNamespace(read=lambda count: pytest.fail("read"))
    os.close(descriptor)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_one_line(root):
    (root / "x.png").chmod(0)
    refused(lambda: read_url("x.png", root, PARAM), "Permission denied")


def test_a_path_of_the_caller_may_lie_anywhere(root):
    assert read_file(root.parent / "secret.png", PARAM) == SECRET
    refused(lambda: read_file(root / "a\0b", PARAM), "is not a file name")
