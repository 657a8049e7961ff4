"""What of an image file the decoder gets to see: the pixels' part, without what is said about them.

    PNG     signature, chunks  IHDR PLTE tRNS IDAT IEND      dropped: text, profiles, animation
    JPEG    FFD8, segments, scans to the first FFD9          dropped: APP1-APP13, APP15, comments,
                                                             pictures and clips behind it
    GIF     header, palette, transparency, images    dropped: comments, applications
    WebP, BMP                                                as they are

A file is hostile until decoded. What is dropped is where PIL runs long loops or warns on purpose;
EXIF is kept aside for the orientation. Every walk here ends after MAX_PARTS parts.
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

MAX_PARTS = 1 << 16  # chunks, segments or blocks; a PNG of 64 MiB in pieces of 8 KiB has 8192

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
PNG_RESCALED = (b"\x02\0", b"\x04\0", b"\x10\x02")  # depth and colour type: grey, grey, RGB
JPEG_DROPPED = (*range(0xE1, 0xEE), 0xEF, 0xFE)  # APP0 (JFIF) and APP14 (Adobe) decide the colours
JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # but for those without a length
EXIF_HEAD = b"Exif\0\0"
ORIENTATION = 0x0112
SHORT, LONG = 3, 4  # types of an EXIF entry


class BrokenFile(ValueError):  # noqa: N818  never seen outside: it becomes a RequestError
    """The file cannot be walked; the text completes 'cannot be read: ...'."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file in one of the formats that are read."""

    format: str  # PIL's name of it
    data: bytes
    exif: bytes = b""  # a TIFF header and its directories; of a WebP only PIL knows
    passes: int = 1  # over all pixels: a progressive JPEG refines them scan by scan


def image_file(data: bytes) -> ImageFile | None:
    """Recognise and strip a file; None if it is none of ours, BrokenFile if it cannot be walked."""
    kind = next((kind for kind in _READERS if _MAGIC[kind](data)), None)
    try:
        return None if kind is None else _READERS[kind](data)
    except (IndexError, struct.error):
        raise BrokenFile("it is truncated") from None


def orientation(exif: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1 also for EXIF that is absent or broken."""
    tiff = exif.removeprefix(EXIF_HEAD)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == ORIENTATION and kind in (SHORT, LONG):
                (value,) = struct.unpack_from(
                    order + ("H" if kind == SHORT else "I"), tiff, entry + 8
                )
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # it ends inside its own directory
    return 1


def _png(data: bytes) -> ImageFile:
    kept: list[bytes | memoryview] = [data[:8]]
    exif, at, whole = b"", 8, memoryview(data)
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind == b"tRNS" and data[24:26] in PNG_RESCALED:
            kept.append(_png_key(data[at + 8 : end - 4], data[24], data[25]))
        elif kind in PNG_KEPT:
            kept.append(whole[at:end])
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        if kind == b"IEND":
            break
        at = end
    else:
        raise BrokenFile(f"it has more than {MAX_PARTS} chunks")
    return ImageFile("PNG", b"".join(kept), exif)


def _png_key(key: bytes, depth: int, colour: int) -> bytes:
    """A tRNS chunk whose values lie where PIL's 8-bit pixels do, which PIL itself forgets."""
    values = struct.unpack(">3H" if colour == 2 else ">H", key)
    steps = (1 << depth) - 1
    scaled = (v >> 8 if depth == 16 else v % (steps + 1) * (255 // steps) for v in values)
    chunk = b"tRNS" + struct.pack(f">{len(values)}H", *scaled)
    return struct.pack(">I", len(key)) + chunk + struct.pack(">I", zlib.crc32(chunk))


def _jpeg(data: bytes) -> ImageFile:
    kept: list[bytes | memoryview] = [data[:2]]
    exif, at, scans, whole = b"", 2, [], memoryview(data)
    for _ in range(MAX_PARTS):
        found = JPEG_MARKER.search(data, at)
        if found is None or found[0] == b"\xff\xd9":
            stop = len(data) if found is None else found.end()
            break
        at, marker = found.start(), found[0][1]
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if marker == 0xDA:
            scans.append(at)
        elif marker == 0xE1 and data.startswith(EXIF_HEAD, at + 4):
            exif = exif or data[at + 4 : end]
        if not scans and marker not in JPEG_DROPPED:
            kept.append(whole[at:end])
        at = end
    else:
        raise BrokenFile(f"it has more than {MAX_PARTS} segments")
    if not scans:
        raise BrokenFile("it holds no image")
    return ImageFile("JPEG", b"".join([*kept, whole[scans[0] : stop]]), exif, len(scans))


def _gif(data: bytes) -> ImageFile:
    at = 13 + _gif_palette_bytes(data[10])
    head, control, whole = data[10:at], b"", memoryview(data)
    for _ in range(MAX_PARTS):
        if data[at] == 0x2C:
            size = _gif_size(data, at)
            return ImageFile("GIF", b"".join([data[:6], size, head, control, whole[at:]]))
        if data[at] != 0x21:
            break
        if data[at + 1 : at + 3] == b"\xf9\x04":
            transparent = data[at + 3] & 1  # the other flags are about a next image
            control = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, transparent, 0, data[at + 6], 0)
        at = _gif_blocks_end(data, at + 2)
    raise BrokenFile("it holds no image")


def _gif_palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_size(data: bytes, image: int) -> bytes:
    """Width and height of the screen, enlarged to what its first image needs."""
    screen_w, screen_h = struct.unpack_from("<HH", data, 6)
    left, top, width, height = struct.unpack_from("<HHHH", data, image + 1)
    size = max(screen_w, left + width), max(screen_h, top + height)
    if max(size) > 0xFFFF:
        raise BrokenFile("its image lies beside its screen")
    return struct.pack("<HH", *size)


def _gif_blocks_end(data: bytes, at: int) -> int:
    for _ in range(MAX_PARTS):
        if not data[at]:
            return at + 1
        at += 1 + data[at]
    raise BrokenFile(f"it has an extension of more than {MAX_PARTS} blocks")


_MAGIC: dict[str, Callable[[bytes], bool]] = {
    "PNG": lambda data: data.startswith(PNG_SIGNATURE),
    "JPEG": lambda data: data.startswith(b"\xff\xd8\xff"),
    "GIF": lambda data: data.startswith((b"GIF87a", b"GIF89a")),
    "WEBP": lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP",
    "BMP": lambda data: data.startswith(b"BM"),
}
_READERS: dict[str, Callable[[bytes], ImageFile]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "GIF": _gif,
    "WEBP": lambda data: ImageFile("WEBP", data),
    "BMP": lambda data: ImageFile("BMP", data),
}
