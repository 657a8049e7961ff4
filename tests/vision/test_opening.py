"""From the parts of messages to Media: every kind of source, in order, and no more than fits."""

import base64

import numpy as np
import pytest
from PIL import Image

from hybrid.chat.messages import MediaPart
from hybrid.errors import ContextTooLongError, RequestError
from hybrid.vision import opening
from hybrid.vision.image import image_media
from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.opening import open_image, open_parts, open_video
from tests.vision.clips import animation
from tests.vision.image_files import noise, written

PICTURE = noise(60, 40)  # 2 x 3 tokens
PNG = written(PICTURE, "PNG")
GIF = animation("GIF", [0, 80, 160, 240], 500, size=(28, 28))  # 4 frames, a chunk of one token
LIMIT = 1000


def part(source=None, kind="image", *, at=0):
    return MediaPart(kind, source, is_url=False, param=f"messages[0].content[{at}].{kind}")


def url_part(url, kind="image"):
    return MediaPart(kind, url, is_url=True, param=f"messages[0].content[0].{kind}_url")


def opened(*parts, beside=(), max_tokens=LIMIT, root=None):
    return open_parts(parts, beside, PUBLISHED, max_tokens, root)


def data_url(content, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def digests(media):
    return [item.digest for one in media for item in one.items]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "a.gif").write_bytes(GIF)
    return tmp_path


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("bytes", "image"),
        ("bytearray", "image"),
        ("memoryview", "image"),
        ("PIL", "image"),
        ("Path", "a.png"),
        ("Media", "board"),
    ],
)
def test_an_image_may_come_as(form, name, files):
    source = {
        "bytes": PNG,
        "bytearray": bytearray(PNG),
        "memoryview": memoryview(PNG),
        "PIL": PICTURE,
        "Path": files / "a.png",
        "Media": image_media(PNG, PUBLISHED, "board"),
    }[form]
    media = open_image(source, PUBLISHED)
    assert (media.kind, media.name, media.tokens) == ("image", name, 6)
    assert digests([media]) == digests([image_media(PNG, PUBLISHED)])
    assert form == "Media" or open_image(source, PUBLISHED, "mine").name == "mine"
    assert digests(opened(part(source))) == digests([media])
    assert digests(opened(part(), beside=[source])) == digests([media])


@pytest.mark.parametrize("form", ["bytes", "bytearray", "memoryview", "Path", "Media"])
def test_a_video_may_come_as(form, files):
    source = {
        "bytes": GIF,
        "bytearray": bytearray(GIF),
        "memoryview": memoryview(GIF),
        "Path": files / "a.gif",
        "Media": open_video(GIF, PUBLISHED, LIMIT),
    }[form]
    media = open_video(source, PUBLISHED, LIMIT)
    assert (media.kind, media.tokens, media.items[0].grid) == ("video", 1, (4, 2, 2))
    assert media.stamps == ("00:00:00.000",)
    assert digests(opened(part(source, "video"))) == digests([media])
    assert open_video(files / "a.gif", PUBLISHED, LIMIT).name == "a.gif"


def test_urls(files):
    known = digests([image_media(PNG, PUBLISHED)])
    assert digests(opened(url_part(data_url(PNG)))) == known
    for url in ("a.png", f"file://{files}/a.png"):
        assert digests(opened(url_part(url), root=files)) == known
        with pytest.raises(RequestError, match="names a file, which is not allowed here"):
            opened(url_part(url))
    (clip,) = opened(url_part("a.gif", "video"), root=files)
    assert clip.kind == "video"


def test_the_same_gif_is_an_image_or_a_video_as_its_part_says():
    image, clip = opened(part(GIF), part(GIF, "video"))
    assert [image.kind, clip.kind] == ["image", "video"]
    assert [image.items[0].grid, clip.items[0].grid] == [(1, 2, 2), (4, 2, 2)]


def test_media_keep_the_order_of_their_parts_and_take_what_is_beside_in_turn(files):
    a, b, c = (noise(28, 28, seed) for seed in range(3))
    media = opened(
        part(),
        url_part(data_url(PNG)),
        part(GIF, "video"),
        part(),
        part(kind="video"),
        part(c),
        beside=[a, b, files / "a.gif"],
    )
    assert [one.kind for one in media] == ["image", "image", "video", "image", "video", "image"]
    images = [media[at] for at in (0, 1, 3, 5)]
    assert digests(images) == digests(image_media(p, PUBLISHED) for p in (a, PNG, b, c))
    assert media[4].name == "a.gif"


def test_nothing_is_nothing():
    assert opened() == []


@pytest.mark.parametrize(
    ("parts", "given", "match", "param"),
    [
        ([part()], 0, r"messages\[0\]\.content\[0\]\.image is missing; give it there", "[0].image"),
        ([part(), part(at=1)], 1, r"content\[1\]\.image is missing", "[1].image"),
        ([part(kind="video")], 0, r"content\[0\]\.video is missing", "[0].video"),
        ([], 1, "1 images were given but the prompt has places for 0", "images"),
        ([part()], 3, "3 images were given but the prompt has places for 1", "images"),
        ([part(PICTURE)], 1, "1 images were given but the prompt has places for 0", "images"),
    ],
)
def test_too_few_and_too_many(parts, given, match, param):
    with pytest.raises(RequestError, match=match) as refused:
        opened(*parts, beside=[PICTURE] * given)
    assert refused.value.param.endswith(param)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (5, "an image is a int; give bytes, a Path or a PIL image"),
        ("a.png", "an image is a str; give bytes, a Path or a PIL image"),
        (np.zeros((4, 4, 3), np.uint8), "an image is a ndarray"),
        ([PNG], "an image is a list"),
        (b"", "is not a PNG"),
        (b"hello", "is not a PNG"),
        (PNG[:40], "."),
        (Image.new("RGB", (0, 4)), "nothing to see"),
    ],
)
def test_what_is_no_image_names_its_part(source, match):
    good, bad = part(PICTURE), part(source, at=1)
    for call in (lambda: opened(good, bad), lambda: opened(good, part(at=1), beside=[source])):
        with pytest.raises(RequestError, match=match) as refused:
            call()
        assert refused.value.param == bad.param
        assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (5, "a video is a int; give bytes or a Path"),
        (PICTURE, "a video is a Image; give bytes or a Path"),
        (b"hello", "."),
        (GIF[:20], "."),
    ],
)
def test_what_is_no_video_names_its_part(source, match):
    bad = part(source, "video", at=3)
    with pytest.raises(RequestError, match=match) as refused:
        opened(bad)
    assert refused.value.param == bad.param
    assert str(refused.value).isprintable()


def test_a_path_that_cannot_be_read_names_its_part(tmp_path):
    for kind in ("image", "video"):
        with pytest.raises(RequestError, match=r"cannot read .*No such file") as refused:
            opened(part(tmp_path / "none.png", kind))
        assert refused.value.param == part(kind=kind).param


def test_kinds_are_not_mixed_up():
    image, clip = image_media(PNG, PUBLISHED, "a\nb"), open_video(GIF, PUBLISHED, LIMIT, "c\nd")
    with pytest.raises(RequestError, match=r"'a\\nb' is an image, not a video"):
        opened(part(image, "video"))
    with pytest.raises(RequestError, match=r"'c\\nd' is a video, not an image"):
        opened(part(clip))
    assert opened(part(image), part(clip, "video")) == [image, clip]


def test_opening_ends_where_the_context_does(monkeypatch):
    calls = []

    def counted(*args, **options):
        calls.append(args)
        return image_media(*args, **options)

    monkeypatch.setattr(opening, "image_media", counted)
    parts = [part(PNG, at=at) for at in range(50)]
    with pytest.raises(ContextTooLongError) as refused:
        opened(*parts, max_tokens=20)
    assert len(calls) == 4  # 24 tokens
    assert (refused.value.tokens, refused.value.limit) == (24, 20)
    assert len(opened(*parts[:3], max_tokens=18)) == 3  # exactly as many as there are


def test_a_video_is_told_what_is_left():
    wide = open_video(GIF, PUBLISHED, LIMIT)
    with pytest.raises(RequestError, match=r"takes 1 tokens, 0 are left"):
        opened(part(PNG), part(GIF, "video"), max_tokens=6)
    assert opened(part(PNG), part(GIF, "video"), max_tokens=7)[1].tokens == wide.tokens


def test_media_opened_before_count_too():
    media = image_media(PNG, PUBLISHED)
    with pytest.raises(ContextTooLongError):
        opened(part(media), part(media), max_tokens=11)
    assert opened(part(media), part(media), max_tokens=12) == [media, media]


def test_without_the_count_too_much_would_be_opened(monkeypatch):
    monkeypatch.setattr(opening.Media, "tokens", 0)
    assert len(opened(*[part(PNG)] * 9, max_tokens=20)) == 9
