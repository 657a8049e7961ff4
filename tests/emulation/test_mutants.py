"""The comparison with numpy notices any one wrong instruction of the kernels' own machine code."""

from dataclasses import replace
from functools import cache

import pytest

from hybrid.cpu_experts.machine_code import object_code
from hybrid.cpu_experts.rows.direct import MAX_ROWS
from tests.emulation.cases import random_case
from tests.emulation.compare import KERNELS, expected, same_bits
from tests.emulation.executed import MINIMAL, call_of
from tests.emulation.mutants import Mutant, mutants
from tests.emulation.needs import needs
from tests.emulation.runner import Job, run

pytestmark = [needs("bochscpu", "iced_x86"), pytest.mark.emulated]

SAMPLE = 24  # of some hundreds to two thousand
BRANCHES = 20_000  # a right kernel needs fewer; a wrong one may not end
TOKENS = (*range(1, MAX_ROWS + 1), MAX_ROWS + 1, 17)  # every branch on the number of tokens


def survivors(isa: str, mode: str, planted: list[Mutant]) -> list[str]:
    """Mutants that no case tells from the right kernel."""
    cases = [random_case(mode, 5, 3, n) for n in TOKENS]
    each = [call_of(isa, case, limit=BRANCHES) for case in cases]
    calls = tuple(
        replace(call, program=program) for program in range(len(planted)) for call in each
    )
    job = Job(MINIMAL[isa], tuple(m.data for m in planted), calls, soft_amx=isa == "amx")
    outcomes = run(job, timeout_s=3000)
    same = [
        not one.offences and same_bits(one.arrays[0], expected(cases[i % len(cases)]))
        for i, one in enumerate(outcomes)
    ]
    return [
        mutant.what
        for i, mutant in enumerate(planted)
        if all(same[i * len(cases) : (i + 1) * len(cases)])
    ]


@cache
def planted(isa: str, mode: str) -> list[Mutant]:
    return mutants(object_code(isa, mode))


@KERNELS
def test_some_mutants_die_and_the_kernel_does_not(isa, mode):
    everyone = planted(isa, mode)
    assert len(everyone) > 100
    step = len(everyone) // SAMPLE
    right = Mutant("unchanged", object_code(isa, mode))
    assert survivors(isa, mode, [right, *everyone[step // 2 :: step]]) == ["unchanged"]


@pytest.mark.slow
@KERNELS
def test_every_mutant_dies(isa, mode):
    """A survivor is a case that is missing, or a change that changes nothing."""
    assert survivors(isa, mode, planted(isa, mode)) == []
