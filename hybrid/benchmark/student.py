"""Student's t distribution, so that a comparison needs no further package."""

import math

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_STEPS = 52  # of a bisection: a double's digits


def two_sided_p(t: float, freedom: float) -> float:
    """The probability of |T| >= t; `freedom` at least 1, and need not be whole.

    With t = sqrt(freedom) tan(angle) the density is cos(angle) ** (freedom - 1) over its integral,
    which gamma functions give. The smooth rest is integrated by Gauss and Legendre.
    """
    angle = math.atan(abs(t) / math.sqrt(freedom))
    angles = angle / 2 * (_NODES + 1)
    inside = angle / 2 * float(np.sum(_WEIGHTS * np.cos(angles) ** (freedom - 1)))
    whole = math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2)
    return max(0.0, 1 - 2 * inside / (math.sqrt(math.pi) * math.exp(whole)))


def quantile(two_sided: float, freedom: float) -> float:
    """The t that |T| exceeds with this probability."""
    low, high = 0.0, math.pi / 2  # angles: finite where t is not
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if two_sided_p(math.sqrt(freedom) * math.tan(middle), freedom) > two_sided:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)
