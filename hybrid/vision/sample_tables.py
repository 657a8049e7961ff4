"""MP4 and MOV: sample tables that claim more samples than any video has, hidden from FFmpeg.

    moov ... "stsz" flags size count [sizes]     with one size for all no list follows: 20 bytes
    moof ... "trun" flags count [samples]        may claim 4,294,967,295 samples without one byte

FFmpeg builds an index of some 60 bytes for each claimed sample while it opens the file, so that
2 kB can take gigabytes. A table over the allowance is renamed to "free", which FFmpeg skips; the
track then has no samples. It also drops a long sound track of single PCM samples: nobody hears it.
"""

import re
import struct
from collections.abc import Iterator

MAX_SAMPLES = 1 << 22  # over all tracks: nine hours of video with sound have 2.5 million
FIRST_BOXES = b"ftyp,styp,moov,moof,mdat,free,skip,wide,pnot,sidx,uuid,junk,udta,pict,prfl".split(
    b","
)
HIDDEN = b"free"
_COUNT_AT = {b"stsz": 12, b"stz2": 12, b"trun": 8}  # bytes from the name to the count
_TABLE = re.compile(b"stsz|stz2|trun|cmov")


def is_mp4(source: bytes) -> bool:
    """Tell by the name of its first box whether a file is MP4 or MOV."""
    return source[4:8] in FIRST_BOXES


def without_vast_tables(source: bytes) -> bytes:
    """Return an MP4 with tables hidden from where they claim more than MAX_SAMPLES in all.

    Also hides "cmov", a compressed header (QuickTime, until 2000) that could hold such a table.
    """
    hidden: list[int] = []
    claimed = 0
    for at in _tables(source):
        count = _claim(source, at)
        if claimed + count > MAX_SAMPLES:
            hidden.append(at)
        else:
            claimed += count
    if not hidden:
        return source
    patched = bytearray(source)
    for at in hidden:
        patched[at : at + 4] = HIDDEN
    return bytes(patched)


def _claim(source: bytes, at: int) -> int:
    count_at = at + _COUNT_AT.get(source[at : at + 4], len(source))
    if count_at + 4 > len(source):
        return MAX_SAMPLES + 1  # "cmov", or cut off: hidden at any rate
    (count,) = struct.unpack_from(">I", source, count_at)
    return int(count)


def _tables(source: bytes) -> Iterator[int]:
    """Find the names anywhere but in media data, where the same bytes mean nothing."""
    for start, end in _boxes_of_tables(source):
        yield from (found.start() for found in _TABLE.finditer(source, start, end))


def _boxes_of_tables(source: bytes) -> Iterator[tuple[int, int]]:
    """Walk the outermost boxes but "mdat"; what follows a broken one counts as one box."""
    start = 0
    while start + 8 <= len(source):
        size, name = struct.unpack_from(">I4s", source, start)
        if size == 1 and start + 16 <= len(source):
            (size,) = struct.unpack_from(">Q", source, start + 8)
        end = min(start + size, len(source)) if size >= 8 else len(source)
        if name != b"mdat":
            yield start, end
        start = end
