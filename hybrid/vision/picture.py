"""From the bytes of an image file, or a PIL image in any mode, to an upright 8-bit RGB picture.

    PNG JPEG WebP GIF BMP -> size checked -> decoded -> colours -> turned as EXIF says

Of an animation it is the first frame. Transparency is laid on white, 16-bit grey is divided by 257
and rounded. The size is checked before a pixel is decoded. PIL's own check warns, at a limit that
belongs to the whole process; so its formats are opened one by one, past Image.open.
"""

import io
import struct
from collections.abc import Mapping

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from hybrid.errors import RequestError
from hybrid.model_files import shown
from hybrid.vision.image_file import BrokenFile, image_file, orientation

MAX_FILE_BYTES = 64 << 20
MAX_SIDE = 65535  # pixels; what JPEG and GIF allow
MAX_PIXELS = 1 << 27  # PIL takes 4 bytes for each, and as much again for transparency
MAX_VISITS = 1 << 31  # pixels times scans of a progressive JPEG; some 3 s on a core of 2.5 GHz

PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
GREY16 = ("I", "I;16", "I;16L", "I;16B", "I;16N")

_OPENERS: Mapping[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
UNREADABLE = (  # what PIL raises for broken files, and for images with odd `info`
    OSError, SyntaxError, ValueError, TypeError, OverflowError, EOFError, IndexError, MemoryError,
    struct.error, Image.DecompressionBombError,
)  # fmt: skip
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_picture(source: bytes | Image.Image, name: str) -> Image.Image:
    """Return an upright RGB picture; raises RequestError in one line that begins with `name`."""
    if isinstance(source, Image.Image):
        picture, exif = source, source.info.get("exif")
        _check_size(picture.size, name)
    elif isinstance(source, bytes):
        picture, exif = _opened(source, name)
    else:
        raise _refused(name, f"is a {type(source).__name__}; give bytes or a PIL image")
    try:
        picture.load()
        return _upright(_rgb(picture, name), exif)
    except UNREADABLE as error:
        raise _unreadable(name, error) from None


def _opened(data: bytes, name: str) -> tuple[Image.Image, object]:
    """The picture behind a file, not yet decoded, and its EXIF."""
    if len(data) > MAX_FILE_BYTES:
        raise _refused(name, f"has {len(data)} bytes; at most {MAX_FILE_BYTES} are read")
    try:
        file = image_file(data)
        if file is None:
            raise _refused(name, "is not a PNG, JPEG, WebP, GIF or BMP file; convert it to one")
        picture = _OPENERS[file.format](io.BytesIO(file.data))
    except UNREADABLE as error:
        raise _unreadable(name, error) from None
    _check_size(picture.size, name, file.passes)
    if picture.tile and picture.tile[0][0] == "bmp_rle":  # PIL reads it in Python, byte by byte
        raise _refused(name, "is a run-length coded BMP, which is not read; convert it to PNG")
    return picture, file.exif or picture.info.get("exif")


def _check_size(size: tuple[int, int], name: str, passes: int = 1) -> None:
    width, height = size
    seen = f"is {width} x {height} pixels"
    if min(size) < 1:
        raise _refused(name, f"{seen}; there is nothing to see")
    if max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise _refused(
            name, f"{seen}; at most {MAX_PIXELS}, {MAX_SIDE} a side, are read; shrink it"
        )
    if width * height * passes > MAX_VISITS:
        raise _refused(name, f"{seen} in {passes} scans, too many to decode; save it again")


def _rgb(picture: Image.Image, name: str) -> Image.Image:
    """8-bit RGB, whatever the mode; transparency on white."""
    if picture.mode in GREY16:
        return _from_grey16(picture, name).convert("RGB")
    if picture.has_transparency_data:
        return _on_white(picture)
    if picture.mode not in PLAIN:
        raise _refused(name, f"has mode {shown(picture.mode)}; convert it to RGB with 8 bits")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _on_white(picture: Image.Image) -> Image.Image:
    """round((a * v + (255 - a) * 255) / 255) for each value v under an alpha a."""
    straight = picture.convert("LA") if picture.mode == "La" else picture
    rgba = straight.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba)
    return white


def _from_grey16(picture: Image.Image, name: str) -> Image.Image:
    """round(v / 257): 0 to 65535 become 0 to 255. The transparent value, if any, becomes white."""
    values = np.asarray(picture)  # [height, width] uint16, or int32 of mode I
    if picture.mode == "I" and (values.min() < 0 or values.max() > 0xFFFF):
        raise _refused(name, "has mode 'I' and values outside 0 to 65535; convert it to RGB")
    table = ((np.arange(0x10000) + 128) // 257).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int) and 0 <= transparent <= 0xFFFF:
        table[transparent] = 255
    return Image.fromarray(table[values])


def _upright(picture: Image.Image, exif: object) -> Image.Image:
    turn = _TURNS.get(orientation(exif)) if isinstance(exif, bytes) else None
    return picture if turn is None else picture.transpose(turn)


def _unreadable(name: str, error: BaseException) -> RequestError:
    reason = str(error) if isinstance(error, BrokenFile) else shown(str(error))[1:-1]
    return _refused(name, f"cannot be read: {reason or type(error).__name__}")


def _refused(name: str, what: str) -> RequestError:
    return RequestError(f"{shown(name)} {what}", param="messages")
