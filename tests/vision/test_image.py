"""From a file to Media, end to end."""

import io

import numpy as np
import pytest
from PIL import Image

from hybrid.errors import RequestError
from hybrid.vision.image import image_media
from hybrid.vision.media_config import PUBLISHED
from tests.reference import image_patches as reference


def photo(width, height):
    random = np.random.default_rng(2)
    small = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def written(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_a_file_becomes_what_plain_pil_makes_of_it(kind):
    data = written(photo(300, 170), kind)
    media = image_media(data, PUBLISHED, "board.x")
    assert (media.kind, media.name, media.width, media.height) == ("image", "board.x", 300, 170)
    (item,) = media.items
    plain = Image.open(io.BytesIO(data)).convert("RGB")
    expected = reference.cut(reference.canvas(plain, PUBLISHED.in_patch_limit))
    assert np.array_equal(item.patches, expected.reshape(len(expected), -1))
    assert item.grid == (1, 14, 22)
    assert media.tokens == item.tokens == 77


def test_a_turned_photo_is_upright_and_counts_as_such():
    exif = Image.Exif()
    exif[0x0112] = 6
    media = image_media(written(photo(300, 170), "JPEG", exif=exif), PUBLISHED)
    assert (media.width, media.height, media.items[0].grid) == (170, 300, (1, 22, 14))


def test_the_same_picture_has_the_same_digest_and_another_another():
    first, second = (image_media(photo(64, n), PUBLISHED).items[0] for n in (64, 64))
    assert first.digest == second.digest
    other = photo(64, 64)
    other.putpixel((63, 63), (1, 2, 3))
    assert image_media(other, PUBLISHED).items[0].digest != first.digest
    wide, tall = Image.new("RGB", (56, 28)), Image.new("RGB", (28, 56))
    digests = {image_media(picture, PUBLISHED).items[0].digest for picture in (wide, tall)}
    assert len(digests) == 2  # the bytes are the same, the grid is not


def test_an_error_names_the_file_in_one_line():
    with pytest.raises(RequestError, match=r"^'a\\nb.png' is not a PNG") as refused:
        image_media(b"hello", PUBLISHED, "a\nb.png")
    assert refused.value.param == "messages"
