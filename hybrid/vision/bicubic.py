"""PIL's bicubic resampling, bit for bit, in half of its time and on two cores: photos and video.

It filters along x, then along y, and rounds to 8 bits after each. So did PIL until version 13,
which begins with y where that is cheaper and so gives other bytes for some shapes; the order here
is that of the model's own preprocessing, whatever is installed. A filter is a row of weights in
units of 2^-22 over a run of inputs; wider than 4 inputs where the picture shrinks:

    out[j] = clip((2^21 + sum over k < count[j] of weight[j, k] * in[first[j] + k]) >> 22)

Here `in[i]` is a row of lanes that are added side by side in SIMD registers. Along y a lane is a
value of a line; along x a strip of LINES lines is turned, so that a lane is a line.

    strip [LINES, W, 3] -> [W, 3 * LINES] -> filter -> [w, 3 * LINES] -> lines [LINES, w, 3]
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN202 (numba infers the types)

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray
from PIL import Image

from hybrid.cpu_experts.compiled import function, once

U8 = NDArray[np.uint8]

WORTHWHILE = 1 << 20  # pixels; below, PIL is done before our threads have started
LINES = 32  # of a strip
TAKEN = 4 * LINES  # that a thread takes out of the picture at a time: fewer cost twice as long
ROWS = 64  # of a result, for one thread at a time
THREADS = 2
BITS = 22
REACH = 2.0  # of the cubic, in inputs, where it does not shrink


@dataclass(frozen=True, slots=True)
class Filter:
    """How outputs along one side are made of inputs."""

    first: NDArray[np.int64]  # [outputs]
    count: NDArray[np.int64]  # [outputs]
    weights: NDArray[np.int32]  # [outputs, taps]

    def part(self, begin: int, end: int) -> "Filter":
        """Outputs `begin` to `end` only."""
        return Filter(self.first[begin:end], self.count[begin:end], self.weights[begin:end])


def resized(picture: Image.Image, width: int, height: int) -> U8:
    """Return uint8 [height, width, 3] of an RGB picture: x first, then y."""
    if picture.width * picture.height < WORTHWHILE or picture.size == (width, height):
        lines_only = picture.resize((width, picture.height), Image.Resampling.BICUBIC)
        return np.asarray(lines_only.resize((width, height), Image.Resampling.BICUBIC))
    with ThreadPoolExecutor(THREADS) as pool:
        lines = np.empty((picture.height, width, 3), np.uint8)
        across = _filter(picture.width, width)
        _all(pool.map(lambda y: _along_x(picture, across, y, lines), range(0, len(lines), TAKEN)))
        out = np.empty((height, width, 3), np.uint8)
        down = _filter(picture.height, height)
        _all(pool.map(lambda y: _along_y(lines, down, y, out), range(0, height, ROWS)))
    return out


def _all(done: Iterable[None]) -> None:
    for _ in done:  # raises what a thread raised
        pass


def _along_x(picture: Image.Image, across: Filter, y: int, lines: U8) -> None:
    taken = picture.crop((0, y, picture.width, min(y + TAKEN, len(lines))))
    # as PIL holds them, with a fourth byte that means nothing: quicker than three
    pixels = np.frombuffer(taken.tobytes("raw", "RGBX"), np.uint8).reshape(-1, taken.width, 4)
    for at in range(0, len(pixels), LINES):
        strip = pixels[at : at + LINES, :, :3]  # [lines, W, 3]
        turned = strip.transpose(1, 2, 0).copy()  # [W, 3, lines]
        out = np.empty((lines.shape[1], *turned.shape[1:]), np.uint8)  # [w, 3, lines]
        _apply(across, turned.reshape(len(turned), -1), out.reshape(len(out), -1))
        lines[y + at : y + at + len(strip)] = out.transpose(2, 0, 1)


def _along_y(lines: U8, down: Filter, y: int, out: U8) -> None:
    part = out[y : y + ROWS]
    _apply(down.part(y, y + ROWS), lines.reshape(len(lines), -1), part.reshape(len(part), -1))


def _apply(along: Filter, source: U8, out: U8) -> None:
    sums = np.empty(source.shape[1], np.int32)
    kernel()(source, along.first, along.count, along.weights, out, sums)


def _filter(inputs: int, outputs: int) -> Filter:
    """Weights as PIL computes them: each step in double precision, in its order."""
    scale = inputs / outputs
    shrink = max(scale, 1.0)
    reach = REACH * shrink
    centre = (np.arange(outputs) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + reach + 0.5).astype(np.int64), inputs) - first
    tap = np.arange(count.max())
    weights = _cubic((tap + first[:, None] - centre[:, None] + 0.5) * (1.0 / shrink))
    weights[tap >= count[:, None]] = 0.0
    total = np.add.accumulate(weights, axis=1)[:, -1:]  # one after the other, not in pairs
    weights = weights / total * (1 << BITS)
    return Filter(first, count, np.trunc(weights + np.copysign(0.5, weights)).astype(np.int32))


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic with a = -1/2."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _kernel(source, first, count, weights, out, sums):
    lanes = sums.shape[0]
    for j in range(out.shape[0]):
        for lane in range(lanes):
            sums[lane] = 1 << (BITS - 1)
        for k in range(count[j]):
            weight, row = weights[j, k], first[j] + k
            for lane in range(lanes):
                sums[lane] += np.int32(source[row, lane]) * weight
        for lane in range(lanes):
            out[j, lane] = min(max(sums[lane] >> BITS, 0), 255)


@once
def kernel() -> Callable[..., None]:
    """Compiled kernel(source [in, lanes], first, count, weights, out [outputs, lanes], sums)."""
    u8, i32, i64 = types.uint8[:, ::1], types.int32, types.int64
    signature: Any = types.void(u8, i64[::1], i64[::1], i32[:, ::1], u8, i32[::1])
    compiled: Callable[..., None] = function("bicubic", signature, _kernel)
    return compiled
