"""The routed experts in slow, obvious numpy: every float32 operation rounded on its own.

A matrix is the checkpoint's pair: packed int32 [out, in/8] and bf16 bits of scales [out, in/32].
`LAYER[mode]` defines the runtime's result bit for bit; `layer_float64` is the real-valued function,
against which the errors of the modes are bounded.
"""

from dataclasses import dataclass, fields
from functools import partial

import numpy as np

F32 = np.float32
GROUP = 32


@dataclass(frozen=True)
class Matrix:
    packed: np.ndarray  # int32 [out, in/8]
    scale: np.ndarray  # uint16 [out, in/32], bf16 bits

    @property
    def pair(self):
        return self.packed, self.scale

    @property
    def codes(self):  # int32 [out, in], -8...7
        shifts = np.arange(0, 32, 4, dtype=np.uint32)
        nibbles = self.packed.view(np.uint32)[:, :, None] >> shifts & np.uint32(15)
        return nibbles.reshape(len(self.packed), -1).astype(np.int32) - 8

    @property
    def scales(self):  # float32 [out, in/32]
        return (self.scale.astype(np.uint32) << 16).view(F32)

    @property
    def dense(self):  # float64 [out, in]
        return self.codes * np.repeat(self.scales.astype(np.float64), GROUP, axis=1)


@dataclass(frozen=True)
class Expert:
    gate: Matrix
    up: Matrix
    down: Matrix

    @property
    def tensors(self):
        return {field.name: getattr(self, field.name).pair for field in fields(self)}


def random_matrix(rng, rows, columns, low=0.005, high=0.05):
    """All sixteen nibbles, scales of either sign never near zero."""
    packed = rng.integers(-(2**31), 2**31, (rows, columns // 8), dtype=np.int32)
    scale = rng.uniform(low, high, (rows, columns // GROUP)).astype(F32)
    scale *= rng.choice(np.array([-1, 1], F32), scale.shape)
    return Matrix(packed, (scale.view(np.uint32) >> 16).astype(np.uint16))


def random_expert(rng, hidden, intermediate):
    return Expert(
        random_matrix(rng, intermediate, hidden),
        random_matrix(rng, intermediate, hidden),
        random_matrix(rng, hidden, intermediate),
    )


# ---- activations


LARGEST = {"int8": 127, "int16": 127 * 256 + 127}  # code of a group's largest magnitude


def quantise(x, mode="int8"):
    """x float32 [n] -> codes int32 [n/32, 32], scales float32 [n/32]."""
    largest = LARGEST[mode]
    groups = x.reshape(-1, GROUP)
    amax = np.abs(groups).max(axis=1)
    with np.errstate(all="ignore"):
        scale = np.where(np.isfinite(amax), amax / F32(largest), F32(np.nan)).astype(F32)
        quotient = groups / scale[:, None]
    live = scale > 0
    codes = np.zeros(groups.shape, np.int32)
    codes[live] = np.clip(np.rint(quotient[live]), -largest, largest)
    return codes, scale


def planes(codes):
    """int16 codes = 256 * high + low, both signed bytes: high is the nearest multiple, ties up."""
    high = (codes + 128) // 256
    return high, codes - 256 * high


def round_bf16(x):
    """Round half to even; NaN stays NaN."""
    bits = x.view(np.uint32)
    rounded = (bits + (0x7FFF + (bits >> 16 & 1)).astype(np.uint32)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), x, rounded.view(F32))


# ---- silu


def exp(x):
    """The polynomial of the runtime for |x| <= 87, operation by operation."""
    magic = F32(12582912.0)
    n = (x * F32(1.44269504) + magic) - magic
    r = (x - n * F32(0.693359375)) - n * F32(-2.12194440e-4)
    p = np.full_like(x, F32(1.9875691500e-4))
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + F32(c)
    p = (p * r * r + r) + F32(1)
    return np.ldexp(p, np.where(np.isnan(n), 0, n).astype(np.int32))


def silu(gate):
    with np.errstate(all="ignore"):
        gate = np.where(gate < F32(-87), F32(-87), gate)
        limited = np.where(gate > F32(87), F32(87), gate)
        return gate / (F32(1) + exp(F32(0) - limited))


# ---- matrix times vector


def matvec_integers(matrix, x, mode):
    """acc = acc + float(dot_g) * (w_scale[g] * x_scale[g]) for g ascending, dot_g exact."""
    codes, scale = quantise(x, mode)
    weights = matrix.codes.reshape(len(matrix.packed), -1, GROUP)
    dots = np.einsum("rgi,gi->rg", weights, codes).astype(F32)
    acc = np.zeros(len(weights), F32)
    with np.errstate(all="ignore"):
        for g in range(len(scale)):
            acc = acc + dots[:, g] * (matrix.scales[:, g] * scale[g])
    return acc


def matvec_int8(matrix, x):
    return matvec_integers(matrix, x, "int8")


def matvec_int16(matrix, x):
    return matvec_integers(matrix, x, "int16")


def matvec_bf16(matrix, x):
    """Inputs of a group one after another, then acc = acc + s * w_scale[g]."""
    x = round_bf16(x)
    codes = matrix.codes.astype(F32)
    acc = np.zeros(len(codes), F32)
    with np.errstate(all="ignore"):
        for g in range(matrix.scales.shape[1]):
            s = np.zeros(len(codes), F32)
            for j in range(g * GROUP, (g + 1) * GROUP):
                s = s + x[j] * codes[:, j]
            acc = acc + s * matrix.scales[:, g]
    return acc


def expert(matvec, weights, x):
    gate, up = matvec(weights.gate, x), matvec(weights.up, x)
    with np.errstate(all="ignore"):
        return matvec(weights.down, silu(gate) * up)


def combine(outputs, weights):
    """Slots in order: acc = acc + w * o."""
    acc = np.zeros_like(outputs[0])
    with np.errstate(all="ignore"):
        for output, weight in zip(outputs, weights, strict=True):
            acc = acc + weight * output
    return acc


def layer(matvec, experts, x, ids, weights):
    """x [T, hidden], ids [T, k] with -1 = skip, weights [T, k] -> [T, hidden]."""
    out = np.zeros_like(x)
    for t in range(len(x)):
        live = [s for s in range(ids.shape[1]) if ids[t, s] >= 0]
        if live:
            outputs = [expert(matvec, experts[ids[t, s]], x[t]) for s in live]
            out[t] = combine(outputs, weights[t, live])
    return out


MATVEC = {"int8": matvec_int8, "int16": matvec_int16, "bf16": matvec_bf16}
LAYER = {mode: partial(layer, matvec) for mode, matvec in MATVEC.items()}
layer_int8 = LAYER["int8"]


def layer_float64(experts, x, ids, weights):
    """The function that all modes approximate; its own rounding is 1e-15 and less."""
    out = np.zeros(x.shape)
    for t, s in zip(*np.nonzero(ids >= 0), strict=True):
        e, row = experts[ids[t, s]], x[t].astype(np.float64)
        gate, up = e.gate.dense @ row, e.up.dense @ row
        out[t] += weights[t, s] * (e.down.dense @ (gate / (1 + np.exp(-gate)) * up))
    return out


# ---- the record, byte by byte


def unpack_record(record, hidden, intermediate):
    """The inverse of repack: record uint8 [nbytes] -> Expert, one nibble at a time."""

    def block(at, inputs):
        codes = np.zeros((16, inputs), np.int32)
        scales = np.zeros((16, inputs // 32), np.uint16)
        for row in range(16):
            for i in range(inputs):
                group, line, place = at + i // 32 * 288, i % 32 // 8, i % 8
                byte = int(record[group + line * 64 + row * 4 + place % 4])
                codes[row, i] = byte >> 4 if place >= 4 else byte & 15
                scale = group + 256 + row * 2
                scales[row, i // 32] = int(record[scale]) | int(record[scale + 1]) << 8
        return codes, scales, at + inputs // 32 * 288

    def matrix(blocks):
        nibbles = np.concatenate([codes for codes, _ in blocks]).astype(np.uint32)
        shifts = np.arange(0, 32, 4, dtype=np.uint32)
        words = (nibbles.reshape(len(nibbles), -1, 8) << shifts).sum(axis=2, dtype=np.uint32)
        return Matrix(words.view(np.int32), np.concatenate([scales for _, scales in blocks]))

    at, gate, up, down = 0, [], [], []
    for target, inputs in [*[(gate, hidden), (up, hidden)] * (intermediate // 16)]:
        codes, scales, at = block(at, inputs)
        target.append((codes, scales))
    for _ in range(hidden // 16):
        codes, scales, at = block(at, intermediate)
        down.append((codes, scales))
    assert at == len(record)
    return Expert(matrix(gate), matrix(up), matrix(down))
