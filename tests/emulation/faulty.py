"""`rows16` as it must not be: numpy's version with one fault each.

The default plan has to hold a case for every one of them whose result shows the fault: else the
comparison with the machine code would pass a kernel that has it.
"""

from collections.abc import Callable

import numpy as np

from tests.emulation.cases import Case
from tests.reference.rows16 import F32, GROUP, ROWS, ascending, codes, rows16, unpacked

Faulty = Callable[[Case], np.ndarray]  # -> float32 [n, 16]
INTEGER, ALL = ("int8", "int16"), ("int8", "int16", "bf16")


def _of_bytes(change: Callable[[np.ndarray], np.ndarray]) -> Faulty:
    """The row blocks, uint8 [blocks, groups, 288], misread."""
    return lambda case: rows16(case.mode, change(case.packed), case.acts[case.index])


def _nibbles(change: Callable[[np.ndarray], np.ndarray]) -> Faulty:
    """The bytes of nibbles, uint8 [blocks, groups, 4 lines, 16 rows, 4], misread."""

    def faulty(packed: np.ndarray) -> np.ndarray:
        shape = packed.shape[:2]
        changed = change(packed[..., :256].reshape(*shape, 4, ROWS, 4).copy())
        packed[..., :256] = changed.reshape(*shape, 256)
        return packed

    return _of_bytes(faulty)


def _of_acts(change: Callable[[np.ndarray], np.ndarray]) -> Faulty:
    """The tokens' activation groups, [n, groups], misread."""
    return lambda case: rows16(case.mode, case.packed, change(case.acts[case.index]))


def _shift_of_three(packed: np.ndarray) -> np.ndarray:
    return (packed & 15) | (packed >> 3 & 15) << 4


def _misplaced_scales(packed: np.ndarray) -> np.ndarray:
    packed[..., 256:] = np.roll(packed[..., 256:], 1, axis=1)
    return packed


def _blocks_backwards(packed: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(packed[::-1])


def _transposed(acts: np.ndarray) -> np.ndarray:
    """Groups read as [groups, n] instead of [n, groups]."""
    return np.ascontiguousarray(acts.reshape(acts.shape[::-1]).T)


def _last_token_is_the_first(acts: np.ndarray) -> np.ndarray:
    acts[-1] = acts[0]
    return acts


def _index_ignored(case: Case) -> np.ndarray:
    return rows16(case.mode, case.packed, case.acts[: len(case.index)])


def _planes_swapped(acts: np.ndarray) -> np.ndarray:
    acts["hi"], acts["lo"] = acts["lo"].copy(), acts["hi"].copy()
    return acts


def _flushed(bits: np.ndarray) -> np.ndarray:
    """bf16 scales with denormals as zero."""
    bits[(bits & 0x7F80) == 0] = 0
    return bits


def _denormal_scales_as_zero(packed: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(packed[..., 256:]).view(np.uint16)
    packed[..., 256:] = _flushed(bits).view(np.uint8)
    return packed


def _denormal_activations_as_zero(acts: np.ndarray) -> np.ndarray:
    values = acts["x" if "x" in acts.dtype.names else "scale"]
    values[np.abs(values) < np.finfo(F32).tiny] = 0
    return acts


def _denormal_results_as_zero(case: Case) -> np.ndarray:
    out = case.expected
    out[np.abs(out) < np.finfo(F32).tiny] = 0
    return out


def _in_groups(case: Case, step: Callable[..., np.ndarray]) -> np.ndarray:
    """acc = step(acc, weights [outputs, 32], scales, activations [n]) for every group."""
    weights, scales = unpacked(case.packed)
    acc = np.zeros((len(case.index), weights.shape[1]), F32)
    with np.errstate(all="ignore"):
        for w, w_scale, group in zip(weights, scales, case.acts[case.index].T, strict=True):
            acc = step(acc, w, w_scale, group)
    return acc


def _arithmetic(step: Callable[..., np.ndarray]) -> Faulty:
    """The integer modes with another way to add a group: step(acc, dot, w_scale, x_scale)."""

    def faulty(case: Case) -> np.ndarray:
        def whole(acc: np.ndarray, w: np.ndarray, scale: np.ndarray, x: np.ndarray) -> np.ndarray:
            dot = (codes(case.mode, x) @ w.T).astype(F32)
            return step(acc, dot, scale, x["scale"][:, None])

        return _in_groups(case, whole)

    return faulty


def _fused(acc: np.ndarray, dot: np.ndarray, w: np.ndarray, x: np.ndarray) -> np.ndarray:
    scale = (w * x).astype(np.float64)  # 24 bits, and dot has 24: their product is exact
    return (acc.astype(np.float64) + dot.astype(np.float64) * scale).astype(F32)


def _dots(change: Callable[..., np.ndarray]) -> Faulty:
    """The integer modes with another dot product: change(codes [n, 32], nibbles [32, outputs])."""

    def faulty(case: Case) -> np.ndarray:
        def whole(acc: np.ndarray, w: np.ndarray, scale: np.ndarray, x: np.ndarray) -> np.ndarray:
            dot = change(codes(case.mode, x), w.T + 8).astype(F32)
            return acc + dot * (scale * x["scale"][:, None])

        return _in_groups(case, whole)

    return faulty


def _saturating(c: np.ndarray, nibbles: np.ndarray) -> np.ndarray:
    """All 32 products of a row summed in 16 bits (24 where there are two planes)."""
    limit = 2**15 if np.abs(c).max(initial=0) < 128 else 2**23
    return np.clip(c @ nibbles, -limit, limit - 1) - 8 * c.sum(axis=1, keepdims=True)


def _unsigned_low_plane(c: np.ndarray, nibbles: np.ndarray) -> np.ndarray:
    high = (c + 128) >> 8
    return (256 * high + ((c - 256 * high) & 255)) @ (nibbles - 8)


def _backwards(case: Case) -> np.ndarray:
    packed, acts = case.packed[:, ::-1], case.acts[case.index, ::-1]
    return rows16(case.mode, np.ascontiguousarray(packed), acts)


def _one_group_less(case: Case) -> np.ndarray:
    return rows16(case.mode, case.packed[:, :-1], case.acts[case.index, :-1])


def _bf16(total_of: Callable[..., np.ndarray], scaled: Callable[..., np.ndarray]) -> Faulty:
    def step(acc: np.ndarray, w: np.ndarray, scale: np.ndarray, x: np.ndarray) -> np.ndarray:
        return scaled(acc, total_of(w, x["x"]), scale)

    return lambda case: _in_groups(case, step)


def _pairwise(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Even inputs, then odd ones: what a dot-product instruction for bf16 does."""
    half = GROUP // 2
    total = np.zeros((2, len(x), len(w)), F32)
    for i in range(half):
        for odd in range(2):
            total[odd] += x[:, 2 * i + odd, None] * w[:, 2 * i + odd].astype(F32)
    return total[0] + total[1]


FAULTS: dict[str, tuple[tuple[str, ...], Faulty]] = {
    "nibbles swapped": (ALL, _nibbles(lambda p: p >> 4 | p << 4)),
    "high nibbles shifted by three": (ALL, _nibbles(_shift_of_three)),
    "nibbles in two's complement": (ALL, _nibbles(lambda p: p ^ 0x88)),
    "lines out of order": (ALL, _nibbles(lambda p: p[:, :, [1, 0, 2, 3]])),
    "rows out of order": (ALL, _nibbles(lambda p: p[:, :, :, ::-1])),
    "bytes of a lane out of order": (ALL, _nibbles(lambda p: p[..., [0, 1, 3, 2]])),
    "scales of the group before": (ALL, _of_bytes(_misplaced_scales)),
    "one group less": (ALL, _one_group_less),
    "groups backwards": (ALL, _backwards),
    "row blocks backwards": (ALL, _of_bytes(_blocks_backwards)),
    "activations transposed": (ALL, _of_acts(_transposed)),
    "index ignored": (ALL, _index_ignored),
    "last token is the first": (ALL, _of_acts(_last_token_is_the_first)),
    "denormal scales as zero": (ALL, _of_bytes(_denormal_scales_as_zero)),
    "denormal activations as zero": (ALL, _of_acts(_denormal_activations_as_zero)),
    "denormal results as zero": (ALL, _denormal_results_as_zero),
    "fused": (INTEGER, _arithmetic(_fused)),
    "w_scale first": (INTEGER, _arithmetic(lambda acc, d, w, x: acc + (d * w) * x)),
    "x_scale first": (INTEGER, _arithmetic(lambda acc, d, w, x: acc + (d * x) * w)),
    "no products with zero": (
        INTEGER, _arithmetic(lambda acc, d, w, x: acc + np.where(d == 0, d, d * (w * x))),
    ),
    "saturating": (INTEGER, _dots(_saturating)),
    "offset of seven": (INTEGER, _dots(lambda c, nibbles: c @ (nibbles - 7))),
    "planes swapped": (("int16",), _of_acts(_planes_swapped)),
    "low plane unsigned": (("int16",), _dots(_unsigned_low_plane)),
    "high plane alone": (("int16",), _dots(lambda c, nibbles: (c + 128 & -256) @ (nibbles - 8))),
    "even and odd apart": (("bf16",), _bf16(_pairwise, lambda acc, t, s: acc + t * s)),
    "scale fused": (
        ("bf16",),
        _bf16(ascending, lambda acc, t, s: _fused(acc, t, s, np.ones(1, F32))),
    ),
}  # fmt: skip
