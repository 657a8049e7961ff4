"""What this machine can do at best: bytes read and int8 products made per second.

The read is the one of hybrid/calibration/plain_read.py. The other loop is written here in LLVM IR,
apart from the code that is held against it, and runs on the same threads, one a core:

    peak    CHAINS accumulators that never leave their registers, each step two independent
            instructions (multiply-add, add) or one (VNNI); no memory at all

A multiply-accumulate of int8 counts once, whatever the instruction does with it.
"""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

from hybrid.calibration import plain_read
from hybrid.calibration.plain_read import (
    SINK_BYTES,
    STREAMS,
    UNIT,
    compiled,
    parsed,
    target_machine,
)
from hybrid.cpu_experts.cores import Seat

__all__ = ["CHAINS", "PEAKS", "STREAMS", "UNIT", "Team", "host_peaks", "parsed", "target_machine"]

CHAINS = 12  # accumulators; with two operands and one product they fill 15 of AVX2's 16 registers
PEAK_SECONDS = 0.2  # of one sample at least: a prefill meets interruptions that a glimpse misses


@dataclass(frozen=True, slots=True)
class Peak:
    """The instructions of an int8 loop, and what the CPU must have to run it."""

    instruction: str
    cpu: str  # LLVM's name of the level
    features: tuple[str, ...]  # beyond that level, by LLVM's names
    lanes: int  # bytes of a register
    accumulates: bool  # the product is added by the same instruction, in 32 bits


PEAKS = {
    "avx2": Peak("vpmaddubsw", "x86-64-v3", (), 32, accumulates=False),
    "avxvnni": Peak("{vex} vpdpbusd", "x86-64-v3", ("avxvnni",), 32, accumulates=True),
    "avx512bw": Peak("vpmaddubsw", "x86-64-v4", (), 64, accumulates=False),
    "avx512vnni": Peak("vpdpbusd", "x86-64-v4", ("avx512vnni",), 64, accumulates=True),
}
LEVELS = {"x86-64-v3": ("avx2", "fma"), "x86-64-v4": ("avx512f", "avx512bw", "avx512vl")}


def peak_ir(peak: Peak) -> str:
    """peak(loops, sink): CHAINS independent chains of products, `loops` times.

    The products are inline assembly with side effects, which LLVM may neither drop nor merge nor
    move; the additions and the registers are LLVM's own choice.
    """
    codes = f"<{peak.lanes} x i8>"
    bits = 32 if peak.accumulates else 16
    sums = f"<{peak.lanes * 8 // bits} x i{bits}>"
    step = []
    for i in range(CHAINS):
        if peak.accumulates:
            call = f'asm sideeffect "{peak.instruction} $3, $2, $0", "=v,0,v,v"'
            step.append(f"%s{i} = call {sums} {call}({sums} %a{i}, {codes} %w, {codes} %x)")
        else:
            call = f'asm sideeffect "{peak.instruction} $2, $1, $0", "=v,v,v"'
            step.append(f"%p{i} = call {sums} {call}({codes} %w, {codes} %x)")
            step.append(f"%s{i} = add {sums} %a{i}, %p{i}")
    chains = range(CHAINS)
    stores = [
        line
        for i in chains
        for line in (
            f"%o{i} = getelementptr i8, ptr %sink, i64 {peak.lanes * i}",
            f"store {sums} %s{i}, ptr %o{i}, align 1",
        )
    ]
    return "\n".join(
        [
            "define void @peak(i64 %loops, ptr %sink) {",
            f"entry: %w = load {codes}, ptr %sink, align 1",
            f"%second = getelementptr i8, ptr %sink, i64 {peak.lanes}",
            f"%x = load {codes}, ptr %second, align 1",
            "br label %loop",
            "loop: %n = phi i64 [%loops, %entry], [%less, %loop]",
            *(f"%a{i} = phi {sums} [zeroinitializer, %entry], [%s{i}, %loop]" for i in chains),
            *step,
            "%less = sub i64 %n, 1",
            "%again = icmp ne i64 %less, 0",
            "br i1 %again, label %loop, label %end",
            "end:",
            *stores,
            "ret void",
            "}",
        ]
    )


@cache
def _peak(isa: str) -> tuple[llvm.ExecutionEngine, Callable[..., None]]:
    """The peak loop of an instruction set; the engine owns the code."""
    peak = PEAKS[isa]
    engine = compiled(peak_ir(peak), target_machine(peak.cpu, peak.features))
    arguments = [ctypes.c_int64, ctypes.c_void_p]
    return engine, ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address("peak"))


def host_peaks() -> tuple[str, ...]:
    """The peak loops that this CPU can execute."""
    try:
        host = {name for name, on in llvm.get_host_cpu_features().items() if on}
    except RuntimeError:  # LLVM does not know this kind of host
        return ()
    needs = {isa: {*LEVELS[peak.cpu], *peak.features} for isa, peak in PEAKS.items()}
    return tuple(isa for isa, needed in needs.items() if needed <= host)


def one_cpu_a_core(cpu: Path = Path("/sys/devices/system/cpu")) -> list[int]:
    """The first CPU of each core that this process may use."""
    cores: dict[str, int] = {}
    for index in sorted(os.sched_getaffinity(0)):
        try:
            core = (cpu / f"cpu{index}/topology/thread_siblings_list").read_text()
        except OSError:
            core = str(index)
        cores.setdefault(core, index)
    return list(cores.values())


class Team(plain_read.Team):
    """Threads that do the same thing at the same time, each bound to a core of its own."""

    def __init__(self, threads: int) -> None:
        cpus = one_cpu_a_core()
        super().__init__([Seat(0, cpus[i % len(cpus)]) for i in range(threads)])
        self._operands = np.random.default_rng(0).integers(1, 15, (threads, SINK_BYTES), np.uint8)
        self._sinks[:] = self._operands
        self._loops = 1 << 16

    def read(self, memory: np.ndarray, streams: int = 1) -> tuple[int, float]:
        """Bytes and seconds of one pass of all threads over the whole UNITs of `memory`."""
        return self.read_nodes([memory], streams)

    def peak(self, isa: str) -> tuple[int, float]:
        """Multiply-accumulates of all threads in the loop of `isa`, and the seconds of the mean."""
        _, code = _peak(isa)
        self._sinks[:] = self._operands  # zeros would draw less power than real products
        spans = self.together([partial(code, self._loops)] * self.threads)
        seconds = [ended - began for began, ended in spans]
        if max(seconds) < PEAK_SECONDS / 2:
            self._loops *= 2
            return self.peak(isa)
        macs = self._loops * CHAINS * PEAKS[isa].lanes
        return macs * self.threads, self.threads / sum(1 / each for each in seconds)
