"""Tables that claim too much are hidden, and nothing else is touched."""

import struct

import pytest

from hybrid.errors import RequestError
from hybrid.vision import container, sample_tables
from hybrid.vision.container import probe
from hybrid.vision.sample_tables import MAX_SAMPLES, is_mp4, without_vast_tables
from tests.vision.clips import video


def box(name: bytes, body: bytes = b"", size: int | None = None) -> bytes:
    return struct.pack(">I4s", len(body) + 8 if size is None else size, name) + body


def stsz(count: int) -> bytes:
    return box(b"stsz", struct.pack(">3I", 0, 1, count))


def trun(count: int) -> bytes:
    return box(b"trun", struct.pack(">2I", 0, count))


FTYP = box(b"ftyp", b"isom")


@pytest.mark.parametrize(
    ("source", "hidden"),
    [
        (FTYP + box(b"moov", stsz(MAX_SAMPLES)), 0),
        (FTYP + box(b"moov", stsz(MAX_SAMPLES + 1)), 1),
        (FTYP + box(b"moov", stsz(MAX_SAMPLES) + stsz(1)), 1),
        (FTYP + box(b"moov", stsz(1 << 31) + stsz(7)), 1),
        (FTYP + box(b"moof", trun(1 << 31)) * 3, 3),
        (FTYP + box(b"moov", box(b"cmov", bytes(99))), 1),
        (FTYP + box(b"moov", stsz(9)[:-2]), 1),
        (FTYP + box(b"mdat", stsz(1 << 31)), 0),
        (FTYP + box(b"mdat", stsz(1 << 31), size=0), 0),
        (FTYP + box(b"mdat", stsz(1 << 31)) + box(b"moov", stsz(1 << 31)), 1),
        (FTYP + struct.pack(">I4sQ", 1, b"mdat", 36) + stsz(1 << 31) + trun(1 << 31), 1),
        (FTYP + box(b"free", stsz(1 << 31)), 1),
        (FTYP + box(b"mdat", size=3) + stsz(1 << 31), 0),
        (FTYP + box(b"what", size=3) + stsz(1 << 31), 1),
    ],
)
def test_what_is_hidden(source, hidden):
    found = without_vast_tables(source)
    assert len(found) == len(source)
    differing = [at for at in range(len(source)) if found[at] != source[at]]
    assert found.count(b"free") - source.count(b"free") == hidden
    assert len(differing) <= 4 * hidden
    if not hidden:
        assert found is source


def test_a_video_is_left_alone():
    source = video("mpeg4", frames=5)
    assert is_mp4(source)
    assert without_vast_tables(source) is source


def claiming(count: int) -> bytes:
    source = bytearray(video("mpeg4", frames=20))
    at = source.index(b"stsz")
    struct.pack_into(">2I", source, at + 8, 1, count)
    struct.pack_into(">I", source, source.index(b"stsc") + 16, count)
    return bytes(source)


def test_ffmpeg_believes_a_table_unless_it_is_hidden(monkeypatch):
    """The limit lowered under the 20 frames: they vanish. Without hiding they are read."""
    source = video("mpeg4", frames=20)
    assert probe(source, "clip").frames == 20
    monkeypatch.setattr(sample_tables, "MAX_SAMPLES", 19)
    with pytest.raises(RequestError):
        probe(source, "clip")
    monkeypatch.setattr(container, "without_vast_tables", lambda source: source)
    assert probe(source, "clip").frames == 20


def test_a_vast_claim_takes_no_memory():
    """80 million samples: FFmpeg would take 4.8 GB. It may take 100 MB here."""
    import resource

    source = claiming(80_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RequestError):
        probe(source, "clip")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("name", [b"ftyp", b"moov", b"mdat", b"free"])
def test_what_is_mp4(name):
    assert is_mp4(box(name))
    assert not is_mp4(b"")
    assert not is_mp4(b"\x1aE\xdf\xa3" + bytes(8))
