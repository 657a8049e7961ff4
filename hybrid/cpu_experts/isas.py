"""The instruction sets: what each needs, and how its micro-kernel is made.

A kernel is compiled for a CPU level and announced features alone, not for the host, so the same
bytes come out on every machine and can be proven on any (tests/emulation). Features are CPUID's as
LLVM reads them: a CPU's name promises what a hypervisor may have masked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import llvmlite.binding as llvm

from hybrid.cpu_experts.amx import amx_permitted
from hybrid.cpu_experts.rows.emit import Code
from hybrid.cpu_experts.rows.kernel import EXPANDED, RESIDENT, TILES, Shape
from hybrid.cpu_experts.rows.vocabulary import Simd, Vnni, Words

_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")


@dataclass(frozen=True, slots=True)
class Isa:
    """One instruction set."""

    name: str
    level: str  # LLVM's CPU name that it builds upon
    extra: tuple[str, ...]  # features beyond the level
    needs: frozenset[str]  # features that the host must have, the level's included
    simd: Callable[[Code], Simd]
    many: Shape  # for more rows than the direct shape takes

    @property
    def features(self) -> str:
        """For LLVM: what to switch on beyond the level."""
        return ",".join(f"+{name}" for name in self.extra)


def _isa(name: str, extra: tuple[str, ...], wide: bool, simd: type[Simd], many: Shape) -> Isa:
    level, base = ("x86-64-v4", _AVX512) if wide else ("x86-64-v3", ())
    needs = frozenset(("avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe", *base, *extra))
    return Isa(name, level, extra, needs, partial(_vectors, simd, 16 if wide else 8), many)


def _vectors(simd: type[Simd], lanes: int, code: Code) -> Simd:
    return simd(code, lanes)


ISAS = {  # slowest first
    isa.name: isa
    for isa in (
        _isa("avx2", (), False, Words, EXPANDED),
        _isa("avxvnni", ("avxvnni",), False, Vnni, EXPANDED),
        _isa("avx512bw", (), True, Words, EXPANDED),
        _isa("avx512vnni", ("avx512vnni",), True, Vnni, RESIDENT),
        _isa("amx", ("avx512vnni", "amx-tile", "amx-int8"), True, Vnni, TILES),
    )
}


@cache
def host_features() -> frozenset[str]:
    """CPU features that this process may execute, by LLVM's names; none where LLVM cannot tell."""
    try:
        return frozenset(name for name, on in llvm.get_host_cpu_features().items() if on)
    except RuntimeError:
        return frozenset()


@cache
def executable() -> tuple[str, ...]:
    """The instruction sets of ISAS that this host can execute, slowest first."""
    here = [isa.name for isa in ISAS.values() if isa.needs <= host_features()]
    return tuple(name for name in here if name != "amx" or amx_permitted())
