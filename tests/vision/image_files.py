"""Image files for tests, well made and not: as bytes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"


def written(picture, kind, **options):
    """What PIL writes."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def noise(width=5, height=3, seed=1):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def exif(orientation):
    values = Image.Exif()
    values[0x0112] = orientation
    return values


def chunk(kind, body=b""):
    whole = kind + body
    return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))


def png(width, height, depth, colour, rows, *chunks):
    """A PNG of raw rows (bytes each, without the filter byte), and chunks in front of them."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return PNG + head + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND")


def broken_crc(data, kind):
    """The same file with the checksum of its first chunk of that kind wrong."""
    at = data.index(kind) - 4
    end = at + 12 + struct.unpack_from(">I", data, at)[0]
    return data[: end - 1] + bytes([data[end - 1] ^ 1]) + data[end:]


def gif(width, height, blocks, flags=0):
    """A GIF header without a palette, and what follows it."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, flags, 0, 0) + blocks


def gif_image(left, top, width, height):
    """An image descriptor and a stream that ends at once."""
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02\x02\x4c\x01\x00;"


def jpeg_with(data, *segments):
    """A JPEG with more (marker, body) behind its first two bytes."""
    parts = [bytes([0xFF, m]) + struct.pack(">H", len(body) + 2) + body for m, body in segments]
    return data[:2] + b"".join(parts) + data[2:]


def many_scans(picture, scans):
    """A progressive JPEG whose last scan is repeated."""
    data = written(picture, "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + data[-2:]


def bmp_rle(picture):
    """A BMP that claims run-length coding."""
    data = bytearray(written(picture.convert("P"), "BMP"))
    data[30:34] = struct.pack("<I", 1)
    return bytes(data)
