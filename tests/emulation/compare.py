"""When a kernel's result is numpy's."""

import numpy as np
import pytest

from tests.emulation.cases import MODES, Case
from tests.emulation.executed import MINIMAL

KERNELS = pytest.mark.parametrize(("isa", "mode"), [(i, m) for i in MINIMAL for m in MODES])

_EXPECTED: dict[tuple[str, bytes, bytes], np.ndarray] = {}


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bit for bit; any NaN equals any NaN."""
    both_nan = np.isnan(a) & np.isnan(b)
    return bool(np.all((a.view(np.uint32) == b.view(np.uint32)) | both_nan))


def expected(case: Case) -> np.ndarray:
    """Numpy's result, kept: five instruction sets ask for the same."""
    key = case.mode, case.packed.tobytes(), case.acts[case.index].tobytes()
    if key not in _EXPECTED:
        _EXPECTED[key] = case.expected
    return _EXPECTED[key]
