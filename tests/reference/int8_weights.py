"""The values that int8 weights stand for: numpy, one obvious step after the other.

Symmetric codes with one scale for each output row and 32 inputs. The scale is the largest magnitude
over 127, rounded up to bf16; a code is the quotient, rounded half to even.
"""

import numpy as np
from numpy.typing import NDArray

GROUP = 32
F64 = NDArray[np.float64]


def coded(weight: F64) -> tuple[NDArray[np.int64], F64]:
    """Codes [rows, groups, 32], padded with zeros, and scales [rows, groups]."""
    rows, columns = weight.shape
    groups = np.zeros((rows, -(-columns // GROUP) * GROUP))
    groups[:, :columns] = weight
    groups = groups.reshape(rows, -1, GROUP)
    scales = bf16_upwards(np.abs(groups).max(axis=2) / 127)
    divisor = np.where(scales > 0, scales, 1)[:, :, None]
    return np.rint(groups / divisor).astype(np.int64), scales


def bf16_upwards(values: F64) -> F64:
    """The smallest bf16 that is not below, of values >= 0 in the normal range."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.ceil(np.ldexp(mantissa, 8)), exponent - 8)


def decoded(weight: F64) -> F64:
    """code * scale [rows, columns]."""
    codes, scales = coded(weight)
    return (codes * scales[:, :, None]).reshape(len(weight), -1)[:, : weight.shape[1]]
