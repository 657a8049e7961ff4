"""The comparison with numpy can fail: on each faulty kernel that we could think of."""

import pytest

from tests.emulation.cases import Case
from tests.emulation.compare import expected, same_bits
from tests.emulation.executed import plan
from tests.emulation.faulty import FAULTS

PLANNED = [(name, mode) for name, (modes, _) in FAULTS.items() for mode in modes]
ENOUGH = 12  # groups beyond which the same faults show, only slower


def cases(mode: str) -> list[Case]:
    return [case for case, _ in plan(mode).values() if case.shape[1] <= ENOUGH]


@pytest.mark.parametrize(("name", "mode"), PLANNED)
def test_a_faulty_kernel_would_be_seen(name, mode):
    _, faulty = FAULTS[name]
    assert any(not same_bits(faulty(case), expected(case)) for case in reversed(cases(mode)))
