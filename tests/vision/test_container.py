"""Files through FFmpeg: what is drawn comes back, and hostile ones stop at one clear line."""

import struct
import sys

import numpy as np
import pytest
from PIL import Image

from hybrid.errors import RequestError
from hybrid.vision import container
from hybrid.vision.container import frames, probe
from tests.vision.clips import NEEDS_AV, damaged, level, sound, video

pytest.importorskip("av", reason=NEEDS_AV)

ALL = frozenset(range(1000))
KINDS = [
    ("mpeg4", "mp4"),
    ("libx264", "mp4"),
    ("libx264", "mov"),
    ("libx264", "matroska"),
    ("libvpx", "webm"),
    ("libvpx-vp9", "webm"),
    ("mpeg4", "avi"),
    ("mpeg2video", "mpegts"),
    ("libx264", "mpegts"),
]


def levels(source: bytes, wanted=ALL) -> list[int | None]:
    """Mean brightness of the left half of each frame."""
    found = []
    for picture in frames(source, wanted, "clip"):
        half = None if picture is None else np.asarray(picture)[:, : picture.width // 2 - 4]
        found.append(None if half is None else round(float(half.mean())))
    return found


def near(seen: int | None, index: int) -> bool:
    """Within 2: video levels are 219 of 255 steps (1) and the codec's own steps add one.

    Neighbouring frames differ by 5, so a frame too early or late is seen.
    """
    return seen is not None and abs(seen - level(index)) <= 2


@pytest.mark.parametrize(("codec", "form"), KINDS)
def test_what_is_drawn_comes_back(codec, form):
    source = video(codec, form, frames=40, options={"b": "2000000"})
    clip = probe(source, "clip")
    assert (clip.frames, clip.width, clip.height) == (40, 64, 48)
    assert clip.fps == 30.0
    seen = levels(source)
    assert len(seen) == 40
    assert all(near(value, index) for index, value in enumerate(seen))


def test_a_frame_late_would_be_seen():
    seen = levels(video(frames=20, options={"b": "2000000"}))
    assert not any(near(value, index + 1) for index, value in enumerate(seen))


def test_only_wanted_frames_become_pictures():
    seen = levels(video(frames=20), wanted={0, 7, 19})
    assert [index for index, value in enumerate(seen) if value is not None] == [0, 7, 19]
    assert near(seen[7], 7)


def test_a_rate_that_is_no_whole_number():
    from fractions import Fraction

    clip = probe(video(fps=Fraction(30000, 1001)), "clip")
    assert clip.fps == 30000 / 1001
    assert probe(video("libvpx", "webm", fps=12), "clip").fps == 12.0


def test_a_rate_that_varies_is_the_average():
    """Ten frames in the first second, then one every second: 40 in 31 s, to a tenth."""
    times = [*range(0, 1000, 100), *range(1000, 31_000, 1000)]
    for form in ("matroska", "mp4"):
        clip = probe(video(frames=40, fps=10, form=form, times=times), "clip")
        assert clip.frames == 40
        assert clip.seconds == pytest.approx(31.0, rel=0.1)


def test_a_told_rate_far_from_the_times_is_not_believed(monkeypatch):
    times = container._Times(packets=40, start=0.0, end=31.0)
    assert times.fps(10.0, "clip") == pytest.approx(40 / 31)
    assert times.fps(1.3, "clip") == 1.3
    assert times.fps(0.0, "clip") == pytest.approx(40 / 31)


@pytest.mark.parametrize("rate", [0.0, 0.001, 1e9])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(RequestError, match=r"'clip' shows .* frames a second; from 0\.01 to 1000"):
        container._Times(packets=1).fps(rate, "clip")


# --- turned frames


@pytest.mark.parametrize(
    ("rotation", "turn"),
    [
        (90, Image.Transpose.ROTATE_90),
        (-90, Image.Transpose.ROTATE_270),
        (180, Image.Transpose.ROTATE_180),
        (92, Image.Transpose.ROTATE_90),
    ],
)
def test_frames_are_upright(rotation, turn):
    plain = next(frames(video(frames=2), {0}, "clip"))
    source = video(frames=2, rotation=rotation)
    turned = next(frames(source, {0}, "clip"))
    assert turned.tobytes() == plain.transpose(turn).tobytes()
    clip = probe(source, "clip")
    assert (clip.width, clip.height) == turned.size


def test_a_mirrored_frame_is_mirrored():
    plain = next(frames(video(frames=2), {0}, "clip"))
    mirrored = next(frames(video(frames=2, rotation=0, hflip=True), {0}, "clip"))
    assert mirrored.tobytes() == plain.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()
    assert mirrored.tobytes() != plain.tobytes()


EIGHT = [(a, 0, 0, d) for a in (-1, 1) for d in (-1, 1)]
EIGHT += [(0, b, c, 0) for b in (-1, 1) for c in (-1, 1)]


@pytest.mark.parametrize("matrix", EIGHT)
def test_all_eight_ways_to_lay_a_frame(matrix):
    """Each pixel goes where x' = a x + c y, y' = b x + d y says, moved into the picture."""
    a, b, c, d = matrix
    source = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)  # [height, width, rgb]
    where = {(a * x + c * y, b * x + d * y): source[y, x] for y in range(2) for x in range(3)}
    left, top = min(x for x, _ in where), min(y for _, y in where)
    found = np.asarray(container._turned(Image.fromarray(source), matrix))
    assert found.size == source.size
    for (x, y), pixel in where.items():
        assert (found[y - top, x - left] == pixel).all()


# --- hostile and odd files

PLAYLISTS = {
    "m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://%s\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile '%s'\n",
    "sdp": (
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=%s\nc=IN IP4 127.0.0.1\nt=0 0\n"
        b"m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    ),
    "dash": (
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        b'<AdaptationSet mimeType="video/mp4"><Representation id="1"><BaseURL>file://%s</BaseURL>'
        b"</Representation></AdaptationSet></Period></MPD>"
    ),
}


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim.mp4"
    path.write_bytes(video(frames=3))
    return path


@pytest.mark.parametrize("form", PLAYLISTS)
def test_a_playlist_opens_nothing(form, victim, monkeypatch):
    opened = []
    monkeypatch.setattr(container, "_open_nothing", lambda url, *rest: opened.append(url))
    source = PLAYLISTS[form] % bytes(victim)
    with pytest.raises(RequestError, match="'list' cannot be read as video") as error:
        probe(source, "list")
    assert "\n" not in str(error.value)
    assert opened == []


def test_a_playlist_opens_nothing_even_if_its_format_were_read(victim, monkeypatch):
    """The second line of defence, alone: it is asked for the file and refuses."""
    monkeypatch.setattr(container, "OTHERS", "concat")
    with pytest.raises(RequestError, match=r"may not name another file|cannot be read"):
        probe(PLAYLISTS["concat"] % bytes(victim), "list")


def test_without_both_defences_the_file_would_be_read(victim, monkeypatch):
    """So the two tests above can fail."""
    import av

    monkeypatch.setattr(container, "OTHERS", "concat,mov")
    plain = av.open

    def open_trusting(*args, options, io_open, **rest):
        return plain(*args, options={"format_whitelist": "concat,mov", "safe": "0"}, **rest)

    monkeypatch.setattr(av, "open", open_trusting)
    assert probe(PLAYLISTS["concat"] % bytes(victim), "list").frames == 3


def with_table(name: bytes, at: int, *values: int) -> bytes:
    source = bytearray(video("mpeg4", frames=20))
    struct.pack_into(f">{len(values)}I", source, source.index(name) + at, *values)
    return bytes(source)


ODD = {
    "nothing": (b"", "cannot be read as video"),
    "text": (b"not a video\n" * 99, "cannot be read as video"),
    "a JPEG": (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(99), "cannot be read as video"),
    "zeros": (bytes(4096), "cannot be read as video"),
    "mp4 without its end": (video("mpeg4")[:-900], "cannot be read as video"),
    "no such sample size": (with_table(b"stsz", 8, 1, 1 << 31), "no frame|cannot be read|no video"),
    "four samples a byte": (with_table(b"stsz", 8, 1, 80_000_000), "no frame|no video"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_is_one_line(kind):
    source, reason = ODD[kind]
    with pytest.raises(RequestError, match=reason) as error:
        list(frames(source, {0}, "clip"))
    with pytest.raises(RequestError, match=reason):
        probe(source, "clip")
    assert error.value.param == "messages"
    assert str(error.value).startswith("'clip' ")
    assert "\n" not in str(error.value)


def test_sound_alone_is_refused():
    with pytest.raises(RequestError, match=r"'clip' has no video in it, only sound or data"):
        probe(sound(), "clip")


@pytest.mark.parametrize(("codec", "form"), [("libx264", "matroska"), ("mpeg4", "avi")])
def test_a_file_cut_in_half_is_refused_where_it_tells_its_length(codec, form):
    source = video(codec, form, options={"g": "10"})
    assert probe(source, "clip").frames == 100
    with pytest.raises(RequestError, match=r"'clip' is cut off: it should run .* s and ends after"):
        probe(source[: len(source) // 2], "clip")


@pytest.mark.parametrize(
    ("codec", "form", "options"),
    [("mpeg2video", "mpegts", {}), ("mpeg4", "mp4", {"movflags": "frag_keyframe+empty_moov"})],
)
def test_a_file_that_does_not_tell_is_read_as_far_as_it_goes(codec, form, options):
    source = video(codec, form, options={"g": "10"}, container_options=options)
    assert 20 < probe(source[: len(source) // 2], "clip").frames < 80


def test_damage_is_refused_once_frames_were_seen():
    source = bytearray(video("mpeg4", "avi", frames=60, options={"g": "1"}))
    middle = source.index(b"\0\0\1\xb6", len(source) // 2)
    source[middle : middle + 64] = bytes(64)
    with pytest.raises(RequestError, match=r"'clip' is damaged after frame \d+; cut it there"):
        list(frames(bytes(source), set(), "clip"))


def test_a_stream_may_start_amid_a_picture():
    source = video("libx264", "mpegts", options={"g": "10"})
    assert probe(source[len(source) // 3 // 188 * 188 :], "clip").frames > 30


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("MAX_FILE_BYTES", 1000, "bytes; at most 1,000 are read"),
        ("MAX_FRAME_PIXELS", 3071, "is 64 x 48; at most 3,071 pixels"),
        ("MAX_PACKETS", 10, "more than 10 packets"),
        ("MAX_SECONDS", 0.0, "more than 0 s to read|cannot be read"),
        ("CODECS", "vp8", "coded in a way that is not read"),
    ],
)
def test_limits(limit, value, reason, monkeypatch):
    source = video(frames=20)
    probe(source, "clip")
    monkeypatch.setattr(container, limit, value)
    with pytest.raises(RequestError, match=reason):
        probe(source, "clip")


def test_the_decoder_itself_refuses_large_frames(monkeypatch):
    """Its size may change in the middle, before any frame comes out to be looked at."""
    monkeypatch.setitem(container.DECODER_LIMITS, "max_pixels", "3071")
    with pytest.raises(RequestError, match=r"no frame that can be decoded|cannot be read"):
        probe(video(frames=20), "clip")


def test_without_pyav_the_error_says_what_to_install(monkeypatch):
    source = video(frames=1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RequestError, match=r"PyAV: pip install 'kimi-local\[video\]'"):
        probe(source, "clip")


def test_damaged_anywhere_it_is_a_clip_or_one_line():
    """Any other exception fails the test."""
    rng = np.random.default_rng(4)
    sources = [video(codec, form, frames=8) for codec, form in KINDS]
    outcomes = {
        outcome(damaged(source, rng, 0, [1, 4, 16])) for _ in range(25) for source in sources
    }
    assert {line.split()[0] for line in outcomes} == {"'clip'", "read"}
    assert not any("\n" in line for line in outcomes)


def outcome(source: bytes) -> str:
    try:
        probe(source, "clip")
        return f"read {len(list(frames(source, {0}, 'clip')))}"
    except RequestError as error:
        return str(error)
