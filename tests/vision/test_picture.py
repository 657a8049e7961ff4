"""Odd and hostile files: each gives the right pixels, or one line that says what is wrong."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from hybrid.errors import RequestError
from hybrid.vision.image_file import orientation
from hybrid.vision.picture import MAX_FILE_BYTES, open_picture
from tests.vision.image_files import (
    PNG,
    bmp_rle,
    broken_crc,
    chunk,
    exif,
    gif,
    gif_image,
    jpeg_with,
    many_scans,
    noise,
    png,
    written,
)

RGB = noise()
GREY = RGB.convert("L")
PALETTE = RGB.quantize(8)
ALPHA = Image.merge("RGBA", (*RGB.split(), GREY))
WHITE = (255, 255, 255)


def on_white(rgb, alpha):
    """round((a v + (255 - a) 255) / 255): ties do not occur, 255 is odd."""
    values, a = np.asarray(rgb, np.int64), np.asarray(alpha, np.int64)[:, :, None]
    return (2 * (a * values + (255 - a) * 255) + 255) // 510


def pixels_of(picture):
    return np.asarray(picture.convert("RGB"), np.int64)


def grey(*rows):
    return np.repeat(np.array(rows)[:, :, None], 3, axis=2)


def cmyk_jpeg():
    """Red, as Adobe writes it: inverted ink, by PIL."""
    return written(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)


def ycck_jpeg():
    """Y of 200 without chroma, and no black: inks of 55, which Adobe stores inverted, as 200."""
    ink = Image.merge("CMYK", [Image.new("L", (16, 16), v) for v in (55, 127, 127, 0)])
    data = bytearray(written(ink, "JPEG", quality=100))
    data[data.index(b"Adobe") + 11] = 2  # was 0: the same samples are now YCCK
    return bytes(data)


GREY_JPEG = written(Image.new("L", (1, 1), 128), "JPEG")
P_ALPHAS = bytes([0, 128, 255, 255, 255, 255, 255, 7])

GOOD = {
    "png": (written(RGB, "PNG"), pixels_of(RGB)),
    "bmp": (written(RGB, "BMP"), pixels_of(RGB)),
    "lossless webp": (written(RGB, "WEBP", lossless=True), pixels_of(RGB)),
    "grey png": (written(GREY, "PNG"), pixels_of(GREY)),
    "grey bmp": (written(GREY, "BMP"), pixels_of(GREY)),
    "palette png": (written(PALETTE, "PNG"), pixels_of(PALETTE)),
    "palette bmp": (written(PALETTE, "BMP"), pixels_of(PALETTE)),
    "gif": (written(PALETTE, "GIF"), pixels_of(PALETTE)),
    "gif 87a": (b"GIF87a" + written(PALETTE, "GIF")[6:], pixels_of(PALETTE)),
    "one pixel": (written(RGB.crop((0, 0, 1, 1)), "PNG"), pixels_of(RGB)[:1, :1]),
    "1-bit png": (written(GREY.convert("1"), "PNG"), pixels_of(GREY.convert("1"))),
    "1-bit bmp": (written(GREY.convert("1"), "BMP"), pixels_of(GREY.convert("1"))),
    "rgba png": (written(ALPHA, "PNG"), on_white(RGB, GREY)),
    "rgba webp": (written(ALPHA, "WEBP", lossless=True, exact=True), on_white(RGB, GREY)),
    "la png": (
        written(ALPHA.convert("LA"), "PNG"), on_white(ALPHA.convert("L").convert("RGB"), GREY)
    ),
    "palette with alphas": (
        written(PALETTE, "PNG", transparency=P_ALPHAS),
        on_white(PALETTE.convert("RGB"), np.array([*P_ALPHAS], int)[np.asarray(PALETTE)]),
    ),
    "gif with a transparent colour": (
        written(PALETTE, "GIF", transparency=2),
        np.where(np.asarray(PALETTE)[:, :, None] == 2, 255, pixels_of(PALETTE)),
    ),
    "rgb with a key": (
        png(2, 1, 8, 2, [b"\1\2\3\4\5\6"], chunk(b"tRNS", b"\0\1\0\2\0\3")),
        [[WHITE, (4, 5, 6)]],
    ),
    "rgb of 16 bits": (png(2, 1, 16, 2, [bytes(range(12))]), [[(0, 2, 4), (6, 8, 10)]]),
    "rgb of 16 bits with a key": (
        png(2, 1, 16, 2, [bytes(range(12))], chunk(b"tRNS", bytes(range(6, 12)))),
        [[(0, 2, 4), WHITE]],
    ),
    "grey with a key": (
        png(3, 1, 8, 0, [b"\0\1\2"], chunk(b"tRNS", b"\0\1")),
        grey([0, 255, 2]),
    ),
    "grey of 4 bits with a key": (
        png(4, 1, 4, 0, [b"\x01\x23"], chunk(b"tRNS", b"\0\2")),
        grey([0, 17, 255, 51]),
    ),
    "grey of 2 bits with a key": (
        png(4, 1, 2, 0, [b"\x1b"], chunk(b"tRNS", b"\0\1")),
        grey([0, 255, 170, 255]),
    ),
    "grey of 1 bit with a key": (
        png(8, 1, 1, 0, [b"\xf0"], chunk(b"tRNS", b"\0\0")),
        grey([255] * 8),
    ),
    "grey of 16 bits": (
        png(5, 1, 16, 0, [struct.pack(">5H", 0, 128, 129, 40000, 65535)]),
        grey([0, 0, 1, 156, 255]),
    ),
    "grey of 16 bits with a key": (
        png(2, 1, 16, 0, [struct.pack(">2H", 300, 301)], chunk(b"tRNS", struct.pack(">H", 300))),
        grey([255, 1]),
    ),
    "first frame of a gif": (
        written(PALETTE, "GIF", save_all=True, append_images=[noise(seed=2).quantize(8)]),
        pixels_of(PALETTE),
    ),
    "first frame of a png": (
        written(RGB, "PNG", save_all=True, append_images=[noise(seed=2)]),
        pixels_of(RGB),
    ),
    "first frame of a webp": (
        written(RGB, "WEBP", save_all=True, append_images=[noise(seed=2)], lossless=True),
        pixels_of(RGB),
    ),
    "gif with an image beyond its screen": (
        written(PALETTE, "GIF")[:6] + b"\1\0\1\0" + written(PALETTE, "GIF")[10:],
        pixels_of(PALETTE),
    ),
    "png with a wrong checksum of sound data": (
        broken_crc(written(RGB, "PNG"), b"IDAT"), pixels_of(RGB)
    ),
    "png that ends early is black from there": (
        png(2, 3, 8, 0, [b"\x09\x09"]), grey([9, 9], [0, 0], [0, 0])
    ),
    "png with a megabyte of text": (
        png(1, 1, 8, 0, [b"\7"], chunk(b"tEXt", b"a\0" + b"x" * (1 << 20))),
        grey([7]),
    ),
    "png with a text bomb": (
        png(1, 1, 8, 0, [b"\7"], chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 << 20)))),
        grey([7]),
    ),
    "png with a profile bomb": (
        png(1, 1, 8, 0, [b"\7"], chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(64 << 20)))),
        grey([7]),
    ),
    "png with a lying animation": (
        png(1, 1, 8, 0, [b"\7"], chunk(b"acTL", struct.pack(">II", 0, 0))),
        grey([7]),
    ),
    "jpeg cmyk": (cmyk_jpeg(), np.full((16, 16, 3), (255, 0, 0))),
    "jpeg ycck": (ycck_jpeg(), np.full((16, 16, 3), 55)),
    "jpeg with broken exif": (
        jpeg_with(GREY_JPEG, (0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff")),
        grey([128]),
    ),
    "jpeg with a clip behind it": (
        GREY_JPEG + b"\xff\xda" * 100000,
        grey([128]),
    ),
    "jpeg with bytes between segments": (
        jpeg_with(GREY_JPEG, (0xFE, b"comment"))[:13]
        + b"\0\0junk"
        + GREY_JPEG[2:],
        grey([128]),
    ),
    "20000 x 100": (written(Image.new("1", (20000, 100)), "PNG"), np.zeros((100, 20000, 3))),
}  # fmt: skip

BMP, JPEG = written(RGB, "BMP"), written(noise(8, 9), "JPEG")
RGB_IHDR = b"IHDR" + struct.pack(">II", 5, 3)
HUGE_IHDR = b"IHDR" + struct.pack(">II", 1 << 31, 1 << 31)
JPEG_FRAME, HUGE_FRAME = b"\x08\0\x09\0\x08\x03", b"\x08\xff\xdc\xff\xdc\x03"
BAD = {
    "empty": (b"", "is not a PNG, JPEG, WebP, GIF or BMP file"),
    "text": (b"hello\nworld\n" * 99, "is not a PNG"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a PNG"),
    "pdf": (written(RGB, "PDF"), "is not a PNG"),
    "tiff": (written(RGB, "TIFF"), "is not a PNG"),
    "icon": (written(RGB, "ICO"), "is not a PNG"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is not a PNG"),
    "wrong magic": (b"\x88" + written(RGB, "PNG")[1:], "is not a PNG"),
    "only the magic of a png": (PNG, "cannot be read"),
    "only the magic of a jpeg": (b"\xff\xd8\xff", "holds no image"),
    "only the magic of a gif": (b"GIF89a", "truncated"),
    "only the magic of a webp": (b"RIFF\0\0\0\0WEBP", "cannot be read"),
    "only the magic of a bmp": (b"BM", "cannot be read"),
    "png cut in two": (written(noise(50, 50), "PNG")[:3000], "cannot be read"),
    "jpeg cut in two": (written(noise(50, 50), "JPEG")[:2000], "truncated"),
    "gif cut in two": (written(noise(50, 50), "GIF")[:1500], "cannot be read"),
    "webp cut in two": (written(noise(50, 50), "WEBP")[:1000], "cannot be read"),
    "bmp cut in two": (written(noise(50, 50), "BMP")[:3000], "truncated"),
    "checksum of the header": (broken_crc(written(RGB, "PNG"), b"IHDR"), "checksum"),
    "png of no pixels": (png(0, 5, 8, 2, []), "cannot be read"),
    "png that claims 2^62 pixels": (
        written(RGB, "PNG").replace(RGB_IHDR, HUGE_IHDR), "cannot be read"
    ),
    "png bomb": (png(60000, 60000, 1, 0, []), "is 60000 x 60000 pixels; at most"),
    "png of one line": (png(1, 1 << 27, 8, 0, []), "is 1 x 134217728 pixels; at most"),
    "png of 70000 chunks": (PNG + chunk(b"IDAT") * 70000, "more than 65536 chunks"),
    "jpeg of 70000 segments": (
        jpeg_with(JPEG, *[(0xFE, b"")] * 70000), "more than 65536 segments"
    ),
    "jpeg of 2000 scans": (many_scans(Image.new("RGB", (1100, 1000)), 2000), "in 2010 scans"),
    "jpeg that claims 65500 x 65500": (
        JPEG.replace(JPEG_FRAME, HUGE_FRAME), "is 65500 x 65500 pixels"
    ),
    "jpeg without a scan": (b"\xff\xd8\xff\xd9", "holds no image"),
    "gif of no frames": (gif(5, 5, b";"), "holds no image"),
    "gif of comments": (gif(5, 5, b"!\xfe" + b"\x01x" * 70000 + b"\0;"), "more than 65536 blocks"),
    "gif with a huge screen": (gif(65535, 65535, gif_image(0, 0, 1, 1)), "is 65535 x 65535 pixels"),
    "gif with a huge image": (gif(1, 1, gif_image(0, 0, 12000, 12000)), "is 12000 x 12000 pixels"),
    "gif with an image far away": (gif(1, 1, gif_image(65535, 0, 9, 9)), "beside its screen"),
    "bmp with runs": (bmp_rle(RGB), "run-length coded"),
    "bmp of 4 gigapixels": (
        BMP[:18] + struct.pack("<ii", 65000, 65000) + BMP[26:], "is 65000 x 65000 pixels"
    ),
    "webp that claims 16384 x 16384": (
        b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2, "cannot be read"
    ),
    "too large a file": (PNG + bytes(MAX_FILE_BYTES), "bytes; at most 67108864"),
    "a path": ("board.png", "is a str; give bytes or a PIL image"),
    "nothing": (None, "is a NoneType"),
    "a bytearray": (bytearray(PNG), "is a bytearray"),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_an_odd_file_gives_the_right_pixels(case):
    data, expected = GOOD[case]
    picture = open_picture(data, case)
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), np.asarray(expected))


@pytest.mark.parametrize("case", BAD)
def test_a_hostile_file_gives_one_line(case):
    data, words = BAD[case]
    with pytest.raises(RequestError) as refused:
        open_picture(data, case)
    line = str(refused.value)
    assert line.startswith(f"'{case}' ")
    assert words in line
    assert "\n" not in line
    assert len(line) < 200
    assert refused.value.param == "messages"


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}],
    ids=str,
)
def test_a_jpeg_is_what_plain_pil_makes_of_it(options):
    data = written(noise(70, 50), "JPEG", **options)
    with Image.open(io.BytesIO(data)) as plain:
        assert np.array_equal(np.asarray(open_picture(data, "x")), np.asarray(plain))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_turned_as_exif_says(kind, turn):
    data = written(noise(40, 20), kind, exif=exif(turn))
    with Image.open(io.BytesIO(data)) as plain:
        expected = np.asarray(ImageOps.exif_transpose(plain).convert("RGB"))
        assert np.array_equal(np.asarray(open_picture(data, "x")), expected)
        assert np.array_equal(np.asarray(open_picture(plain, "x")), expected)


@pytest.mark.parametrize(
    ("tiff", "turn"),
    [
        (b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0", 6),
        (b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\3\0\0\0", 3),
        (b"II*\0\x08\0\0\0\1\0\x12\1\4\0\1\0\0\0\x08\0\0\0", 8),
        (b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\5\0\0", 5),
        (b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x09\0\0", 1),  # out of range
        (b"MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\1\0\6\0\0", 1),  # not a number
        (b"MM\0*\xff\xff\xff\xff", 1),
        (b"MM\0*\0\0\0\x08\xff\xff", 1),
        (b"", 1),
        (b"nonsense", 1),
    ],
)
def test_orientation(tiff, turn):
    assert orientation(tiff) == turn


MODES = {
    "I": (Image.new("I", (2, 2), 40000), (156, 156, 156)),
    "I;16B": (Image.new("I;16B", (2, 2), 129), (1, 1, 1)),
    "YCbCr": (Image.new("YCbCr", (2, 2), (50, 128, 128)), (50, 50, 50)),
    "HSV": (Image.new("HSV", (2, 2), (0, 255, 200)), (200, 0, 0)),
    "LAB": (Image.new("LAB", (2, 2), (255, 128, 128)), None),
    "CMYK": (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), (255, 0, 0)),
    "RGBX": (Image.new("RGBX", (2, 2), (1, 2, 3, 4)), (1, 2, 3)),
    "RGBa": (Image.new("RGBa", (2, 2), (0, 0, 0, 0)), WHITE),
    "La": (Image.new("La", (2, 2), (0, 255)), (0, 0, 0)),
    "PA": (Image.new("PA", (2, 2)), WHITE),
    "1": (Image.new("1", (2, 2), 1), WHITE),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_pil_image_of_any_mode_becomes_rgb(mode):
    image, colour = MODES[mode]
    assert image.mode == mode
    picture = open_picture(image, "x")
    assert (picture.mode, picture.size) == ("RGB", (2, 2))
    assert colour is None or picture.getpixel((1, 1)) == colour


def closed_image():
    image = Image.open(io.BytesIO(written(RGB, "PNG")))
    image.close()
    return image


def with_info(mode, transparency):
    image = Image.new(mode, (2, 2))
    image.info["transparency"] = transparency
    return image


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("F", (2, 2), 0.5), "has mode 'F'; convert it to RGB"),
        (Image.new("I", (2, 2), -1), "values outside 0 to 65535"),
        (Image.new("I", (2, 2), 1 << 20), "values outside 0 to 65535"),
        (Image.new("RGB", (0, 3)), "is 0 x 3 pixels; there is nothing to see"),
        (Image.new("1", (1 << 17, 1)), "is 131072 x 1 pixels; at most"),
        (closed_image(), "cannot be read"),
        (with_info("P", (1, 2, 3)), "cannot be read"),
        (with_info("RGB", b"1"), "cannot be read"),
        (with_info("L", 10**30), "cannot be read"),
    ],
    ids=str,
)
def test_an_odd_pil_image_gives_one_line(image, words):
    with pytest.raises(RequestError, match=r"^'x' [^\n]+$") as refused:
        open_picture(image, "x")
    assert words in str(refused.value)


def test_nothing_of_pil_is_changed():
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    for data, _ in BAD.values():
        with pytest.raises(RequestError):
            open_picture(data, "x")
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_a_file_changed_at_random_gives_a_picture_or_one_line():
    dice = random.Random(5)
    seeds = [written(RGB, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF")]
    seeds += [written(PALETTE, "PNG", transparency=P_ALPHAS), written(RGB, "JPEG", exif=exif(6))]
    seen, lines = set(), ""
    for _ in range(2000):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.choice((1, 1, 3))):
            data[dice.randrange(len(data))] = dice.choice((0, 1, 127, 128, 255))
        try:
            seen.add(open_picture(bytes(data[: dice.choice((None, len(data) // 2))]), "x").mode)
        except RequestError as refused:
            lines += str(refused)
            seen.add("refused")
    assert "\n" not in lines
    assert seen == {"RGB", "refused"}


WARNED = "Invalid APNG|EXIF|decompression bomb"

# What plain PIL would have done: the files above are as odd as they look.


@pytest.mark.parametrize(
    "case",
    ["rgba png", "la png", "palette with alphas", "rgb with a key", "grey of 16 bits",
     "gif with a transparent colour", "grey of 4 bits with a key", "rgb of 16 bits with a key"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_plain_conversion_would_be_caught(case):
    data, expected = GOOD[case]
    with Image.open(io.BytesIO(data)) as plain:
        assert not np.array_equal(np.asarray(plain.convert("RGB")), np.asarray(expected))


@pytest.mark.parametrize("background", ["black", (254, 255, 255)])
def test_another_background_would_be_caught(background):
    other = Image.new("RGB", RGB.size, background)
    other.paste(ALPHA, mask=ALPHA)
    assert not np.array_equal(np.asarray(other), GOOD["rgba png"][1])


@pytest.mark.parametrize(
    "case",
    ["png with a lying animation", "jpeg with broken exif", "gif with a huge image"],
)
def test_plain_opening_would_warn(case):
    data, _ = {**GOOD, **BAD}[case]
    with (
        pytest.warns((UserWarning, RuntimeWarning), match=WARNED),
        Image.open(io.BytesIO(data)) as plain,
    ):
        plain.getexif()


def test_files_of_an_orientation_would_show_a_lost_turn():
    pictures = [np.asarray(open_picture(noise(9, 9), "x").transpose(t)) for t in range(7)]
    original = np.asarray(noise(9, 9))
    assert not any(np.array_equal(picture, original) for picture in pictures)
