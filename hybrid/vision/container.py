"""Video files through FFmpeg (PyAV): what they say about themselves, and their frames.

    bytes -> packets -> count, times, first frame -> Clip              `probe`: one is decoded
    bytes -> packets -> decoder -> upright RGB    -> None None ■ None  `frames`: one at a time

A file is hostile until read. FFmpeg gets bytes, never a name, and may open nothing else: playlists
and other formats that name files are not on the list, and a request to open one is refused. Bytes,
frames, pixels and time are bounded.

Colours are converted by swscale; other readers differ from it by a few of 255 levels. Pixels that
are not square stay as they are, as the reference leaves them.
"""

import io
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from PIL import Image

from hybrid.errors import RequestError
from hybrid.model_files import shown
from hybrid.vision.sample_tables import is_mp4, without_vast_tables
from hybrid.vision.sampling import Clip, Frames

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

MAX_FILE_BYTES = 1 << 30
MAX_FRAME_PIXELS = 1 << 25  # 7680 x 4320 is a little less
MAX_PACKETS = 1 << 22  # of picture and sound: 15 hours at 30 and 47 a second
MAX_SECONDS = 600.0  # of work for one pass over a file
LOW_FPS, HIGH_FPS = 0.01, 1000.0
THREADS = 4  # each holds one more frame
MP4 = "mov,mp4"
OTHERS = "matroska,webm,avi,mpegts,mpeg,flv,ogg,asf"
CODECS = (
    "h264,hevc,av1,libdav1d,vp8,vp9,libvpx,libvpx-vp9,mpeg4,msmpeg4v3,h263,mpeg1video,mpeg2video,"
    "mjpeg,theora,flv,wmv1,wmv2,wmv3,vc1,prores,ffv1,rawvideo"
)
TELL_DURATION = ("mov", "matroska", "avi")  # in the header; of the others FFmpeg infers it
DECODER_LIMITS = {"codec_whitelist": CODECS, "max_pixels": str(MAX_FRAME_PIXELS)}


def probe(source: bytes, name: str) -> Clip:
    """Count the packets and decode the first frame; raises RequestError in one line."""
    first: VideoFrame | None = None
    video, whole = _Times(), _Times()
    with _opened(source, name) as (container, stream):
        for packet in _in_time(container.demux(), name):
            whole.add(packet)
            if packet.stream_index != stream.index:
                continue
            video.add(packet)
            if first is None:
                first = next(_decoded(packet, 0, name), None)
        if first is None:
            raise _undecodable(name)
        _check_complete(container, whole, name)
        width, height = _upright(first, name).size
        fps = video.fps(float(stream.average_rate or 0), name)
    return Clip(frames=max(video.packets, 1), fps=fps, width=width, height=height)


def frames(source: bytes, wanted: AbstractSet[int], name: str) -> Frames:
    """Yield for each frame, in order, its upright RGB picture if `wanted`, else None.

    They may be fewer than `probe` counted: not every packet shows a frame.
    """
    seen = 0
    with _opened(source, name) as (container, stream):
        for packet in _in_time(container.demux(stream), name):
            for frame in _decoded(packet, seen, name):
                yield _upright(frame, name) if seen in wanted else None
                seen += 1
    if not seen:
        raise _undecodable(name)


@dataclass(slots=True)
class _Times:
    """How many packets there are, and from when to when they are shown, in seconds."""

    packets: int = 0
    start: float = float("inf")
    end: float = float("-inf")

    def add(self, packet: "Packet[Any]") -> None:
        """Count a packet; the empty one that ends a file, and what an edit cut away, show none."""
        if not packet.size or packet.is_discard:
            return
        self.packets += 1
        time_base = float(packet.time_base or 0)
        if packet.pts is not None:
            self.start = min(self.start, packet.pts * time_base)
            self.end = max(self.end, (packet.pts + (packet.duration or 0)) * time_base)

    @property
    def span(self) -> float:
        """Seconds from the first to the end of the last; 0 where no packet has a time."""
        return max(self.end - self.start, 0.0)

    def fps(self, told: float, name: str) -> float:
        """Average rate: as told, unless the packets' own times say otherwise by a tenth.

        They do where the rate varies and FFmpeg guessed it from the first seconds. The tenth
        leaves room for rounded times and for packets that show nothing.
        """
        measured = self.packets / self.span if self.span else told
        fps = told if told > 0 and abs(measured - told) <= 0.1 * told else measured
        if not LOW_FPS <= fps <= HIGH_FPS:
            _refuse(name, f"shows {fps:g} frames a second; from {LOW_FPS} to {HIGH_FPS:g} are read")
        return fps


@contextmanager
def _opened(source: bytes, name: str) -> "Iterator[tuple[InputContainer, VideoStream]]":
    """Open bytes and choose the video stream; what FFmpeg raises inside comes out in one line."""
    try:
        import av
    except ImportError:
        _refuse(name, "is a video; reading it needs PyAV: pip install 'kimi-local[video]'")
    if len(source) > MAX_FILE_BYTES:
        _refuse(name, f"is {len(source):,} bytes; at most {MAX_FILE_BYTES:,} are read: cut it")
    mp4 = is_mp4(source)
    try:
        with av.open(
            io.BytesIO(without_vast_tables(source) if mp4 else source),
            "r",
            options={
                "format_whitelist": MP4 if mp4 else OTHERS,
                "protocol_whitelist": "none",
                **DECODER_LIMITS,
            },
            metadata_errors="replace",
            timeout=MAX_SECONDS,
            io_open=_open_nothing,
        ) as container:
            stream = _video_stream(container, name)
            stream.codec_context.options = DECODER_LIMITS
            stream.codec_context.thread_count = THREADS
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.FFmpegError, PermissionError) as error:
        reason = error.strerror or error
        _refuse(name, f"cannot be read as video ({reason}); give MP4, WebM, MKV, AVI or GIF")


def _open_nothing(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("a video may not name another file")


def _video_stream(container: "InputContainer", name: str) -> "VideoStream":
    from av.stream import Disposition

    stream: Any = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        _refuse(name, "has no video in it, only sound or data")
    if stream.codec_context is None or stream.codec_context.name not in CODECS.split(","):
        _refuse(name, "is coded in a way that is not read; convert it to H.264 or VP9")
    _check_size(stream.width, stream.height, name)
    chosen: VideoStream = stream
    return chosen


def _in_time(packets: "Iterator[Packet[Any]]", name: str) -> "Iterator[Packet[Any]]":
    deadline = perf_counter() + MAX_SECONDS
    for count, packet in enumerate(packets):
        if count > MAX_PACKETS:
            _refuse(name, f"has more than {MAX_PACKETS:,} packets: cut it")
        if perf_counter() > deadline:
            _refuse(name, f"takes more than {MAX_SECONDS:g} s to read: cut it")
        yield packet


def _check_complete(container: "InputContainer", whole: _Times, name: str) -> None:
    """Refuse a file that ends long before the time that its header tells."""
    if container.format.name.split(",")[0] not in TELL_DURATION or not container.duration:
        return
    told = container.duration / 1e6  # FFmpeg's are microseconds
    if 0 < whole.span < 0.9 * told - 0.5:
        _refuse(name, f"is cut off: it should run {told:,.1f} s and ends after {whole.span:,.1f} s")


def _decoded(packet: "Packet[VideoStream]", seen: int, name: str) -> "Iterator[VideoFrame]":
    """Decode one packet; damage counts only once a frame was `seen`: streams may start amid one."""
    from av import FFmpegError

    try:
        yield from packet.decode()
    except FFmpegError:
        if seen:
            _refuse(name, f"is damaged after frame {seen:,}; cut it there or convert it again")


def _upright(frame: "VideoFrame", name: str) -> Image.Image:
    _check_size(frame.width, frame.height, name)
    pixels: Any = frame.to_ndarray(format="rgb24")  # [height, width, 3]
    return _turned(Image.fromarray(pixels), _display_matrix(frame))


def _display_matrix(frame: "VideoFrame") -> tuple[int, int, int, int]:
    """How the frame is to be shown: x' = a x + c y, y' = b x + d y, as (a, b, c, d)."""
    found: Any = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(found, np.int32)[:9].tolist()
    return a, b, c, d


def _turned(picture: Image.Image, matrix: tuple[int, int, int, int]) -> Image.Image:
    """Turn and mirror by the matrix, taken to the nearest right angle."""
    a, b, c, d = matrix
    right, down = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture = picture.transpose(Image.Transpose.TRANSPOSE)
        right, down = c, b
    if right < 0:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if down < 0:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return picture


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_FRAME_PIXELS:
        _refuse(name, f"is {width} x {height}; at most {MAX_FRAME_PIXELS:,} pixels are read")


def _undecodable(name: str) -> RequestError:
    return RequestError(
        f"{shown(name)} has no frame that can be decoded; it may be cut off", "messages"
    )


def _refuse(name: str, why: str) -> NoReturn:
    raise RequestError(f"{shown(name)} {why}", "messages") from None
