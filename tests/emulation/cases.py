"""What the kernels are given: ordinary contents and every extreme that a record can hold.

A case owns the integers and scales from which its bytes are packed, so that a result can be checked
against exact integer arithmetic that never saw the bytes. Packing is written here once more, from
design §3: 4 lines of 64 B, lane = row, low nibbles inputs 8j ... 8j+3, then 16 bf16 scales.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from tests.reference.rows16 import GROUP, GROUPS, ROWS, codes, rows16

MODES = ("int8", "int16", "bf16")
ONE = 0x3F80  # 1.0 in bf16
DENORMAL, SMALLEST_NORMAL, LARGEST, INFINITE, NAN = 0x0003, 0x0080, 0x7F7F, 0x7F80, 0x7FC0
SIGN = 0x8000


@dataclass(frozen=True, slots=True)
class Case:
    """Weights as integers, scales as bf16 bits, activation rows, and which rows to compute."""

    mode: str
    weights: np.ndarray  # int8 [blocks, groups, 16, 32], -8...7
    scales: np.ndarray  # uint16 [blocks, groups, 16]
    acts: np.ndarray  # GROUPS[mode] [rows, groups]
    index: np.ndarray  # int32 [n], numbers of rows

    @property
    def shape(self) -> tuple[int, int, int]:
        """Row blocks, groups, tokens."""
        return *self.scales.shape[:2], len(self.index)

    @property
    def packed(self) -> np.ndarray:
        """The row blocks, uint8 [blocks, groups, 288]."""
        blocks, groups, _ = self.shape
        nibbles = (self.weights + 8).astype(np.uint8)
        halves = nibbles.reshape(blocks, groups, ROWS, 4, 2, 4)  # row, line, half, byte
        lines = (halves[..., 0, :] | halves[..., 1, :] << 4).swapaxes(2, 3)
        bits = np.ascontiguousarray(self.scales).view(np.uint8)
        return np.concatenate([lines.reshape(blocks, groups, -1), bits], axis=2)

    @property
    def expected(self) -> np.ndarray:
        """What numpy makes of the bytes, float32 [n, blocks * 16]."""
        return rows16(self.mode, self.packed, self.acts[self.index])

    @property
    def partial_sums(self) -> np.ndarray:
        """Sums of all products so far, without scales or bytes, int64 [groups, n, outputs]."""
        blocks, groups, n = self.shape
        sums = np.zeros((groups, n, blocks * ROWS), np.int64)
        for g, total in enumerate(sums):
            group = self.acts[self.index, g]
            x = group["x"].astype(np.int64) if self.mode == "bf16" else codes(self.mode, group)
            total[:] = x @ self.weights[:, g].reshape(-1, GROUP).T.astype(np.int64)
        return sums.cumsum(axis=0)

    def first(self, n: int) -> "Case":
        """The same for the first n of its tokens."""
        return replace(self, index=self.index[:n])


@cache
def random_case(mode: str, blocks: int, groups: int, n: int) -> Case:
    """All nibbles, scales of either sign, activations never near zero: faults stay visible.

    In bf16 the activations' exponents differ widely, or every order of summation would be exact.
    The n tokens are spread over n + 2 rows, without order; one row is asked for twice.
    """
    rng = np.random.default_rng([blocks, groups, n])
    weights = rng.integers(-8, 8, (blocks, groups, ROWS, GROUP), dtype=np.int8)
    shape = weights.shape[:3]
    scales = rng.uniform(0.005, 0.05, shape) * rng.choice([-1, 1], shape)
    bits = (scales.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    acts = _random_activations(rng, mode, n + 2, groups)
    index = rng.permutation(n + 2)[:n].astype(np.int32)
    index[n // 2] = index[0]
    return _with_offsets(Case(mode, weights, bits, acts, index))


def _random_activations(rng: np.random.Generator, mode: str, rows: int, groups: int) -> np.ndarray:
    acts = np.zeros((rows, groups), GROUPS[mode])
    if mode == "bf16":
        shape = acts["x"].shape
        x = rng.uniform(1, 2, shape) * 2.0 ** rng.integers(-8, 8, shape)
        x *= rng.choice([-1, 1], shape)
        acts["x"] = (x.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
        return acts
    for plane in planes(mode):
        acts[plane] = rng.integers(-127, 128, acts[plane].shape)
    acts["scale"] = rng.uniform(0.001, 0.03, acts.shape)
    return acts


def planes(mode: str) -> tuple[str, ...]:
    """The names of the fields of bytes."""
    return {"int8": ("codes",), "int16": ("hi", "lo"), "bf16": ()}[mode]


def _with_offsets(case: Case) -> Case:
    if case.mode != "bf16":
        case.acts["offset"] = 8 * codes(case.mode, case.acts).sum(axis=2)
    return case


# ---- extremes: each changes a random case in place


def _weights(value: int, sign: int) -> Callable[[Case], None]:
    """All nibbles alike against activations of the largest magnitude and one sign."""

    def change(case: Case) -> None:
        case.weights[:] = value
        _largest(case, sign)

    return change


def _largest(case: Case, sign: int) -> None:
    if case.mode == "bf16":
        case.acts["x"] = sign * 127
    for plane in planes(case.mode):
        case.acts[plane] = sign * 127
    if case.mode == "int16":  # the low plane alone may be -128
        case.acts["lo"][case.acts["lo"] == -127] = -128


def _opposed(case: Case) -> None:
    """High and low plane, and neighbouring inputs, at extremes of opposite sign."""
    _largest(case, 1)
    for plane in planes(case.mode):
        case.acts[plane][..., ::2] = -127
    if case.mode == "int16":
        case.acts["lo"][..., ::3] = -128
    if case.mode == "bf16":
        case.acts["x"][..., ::2] *= -1


def _weight_scale(bits: int) -> Callable[[Case], None]:
    """The last group's scales, of either sign, in all rows but each block's first."""

    def change(case: Case) -> None:
        case.scales[:, -1, 1:] = bits
        case.scales[:, -1, 1::2] |= SIGN

    return change


def _every_weight_scale(bits: int) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        case.scales[:] = bits

    return change


def _activation_scale(value: float) -> Callable[[Case], None]:
    """One token's, in the last group; in bf16, one of its activations."""

    def change(case: Case) -> None:
        row = case.index[0]
        if case.mode == "bf16":
            case.acts["x"][row, -1, 5] = value
        else:
            case.acts["scale"][row, -1] = value
        if not np.isfinite(value):  # as the encoder writes it: no codes where there is no scale
            for plane in planes(case.mode):
                case.acts[plane][row, -1] = 0

    return change


def _all_zero(case: Case) -> None:
    case.acts[:] = np.zeros((), case.acts.dtype)
    case.scales[..., ::2] = SIGN


def _denormal_activations(case: Case) -> None:
    case.acts["x" if case.mode == "bf16" else "scale"] = np.float32(3e-40)
    case.scales[:] = ONE


def _underflow(case: Case) -> None:
    """A product of scales that is denormal although both are normal."""
    case.scales[:] = SMALLEST_NORMAL
    field = "x" if case.mode == "bf16" else "scale"
    case.acts[field] *= np.float32(2.0**-8)


EXTREMES: dict[str, Callable[[Case], None]] = {
    "all -8, largest": _weights(-8, 1),
    "all -8, least": _weights(-8, -1),
    "all +7, largest": _weights(7, 1),
    "all +7, least": _weights(7, -1),
    "opposed": _opposed,
    "zero weight scale": _weight_scale(0),
    "negative weight scale": _every_weight_scale(SIGN | ONE),
    "NaN weight scale": _weight_scale(NAN),
    "infinite weight scale": _weight_scale(INFINITE),
    "largest weight scale": _weight_scale(LARGEST),
    "denormal weight scale": _weight_scale(DENORMAL),
    "zero activation scale": _activation_scale(0.0),
    "NaN activation scale": _activation_scale(np.nan),
    "infinite activation scale": _activation_scale(np.inf),
    "largest activation scale": _activation_scale(3.4e38),
    "denormal activation scale": _activation_scale(1e-42),
    "negative activation scale": _activation_scale(-0.5),
    "all zero": _all_zero,
    "denormal weight scales alone": _every_weight_scale(DENORMAL),
    "denormal activations alone": _denormal_activations,
    "underflow": _underflow,
}


def _copy(case: Case) -> Case:
    return Case(
        case.mode, case.weights.copy(), case.scales.copy(), case.acts.copy(), case.index.copy()
    )


def extreme_case(name: str, mode: str, blocks: int, groups: int, n: int) -> Case:
    """A random case with one thing in it, or all, at an extreme."""
    case = _copy(random_case(mode, blocks, groups, n))
    EXTREMES[name](case)
    return _with_offsets(case)


def unit_case(mode: str, groups: int, n: int, extreme: str | None = None) -> Case:
    """All scales 1, whole activations: every sum is an integer, exact while below 2^24."""
    base = random_case(mode, 5, groups, n)
    case = extreme_case(extreme, mode, 5, groups, n) if extreme else _copy(base)
    case.scales[:] = ONE
    if mode == "bf16":
        case.acts["x"] = np.rint(case.acts["x"])
    else:
        case.acts["scale"] = 1
    return case
