"""What this machine can do at best: bytes read and int8 products made per second.

Both loops are written here in LLVM IR, apart from the code that is held against them, and run on
threads of their own, one a core:

    read    8 accumulators of 32 bytes; threads take UNIT bytes at a time from a shared counter and
            go through them from front to back: the plain read that kernels are compared with
    streams the same through the STREAMS equal parts of a unit at once, which suits prefetchers
    peak    CHAINS accumulators that never leave their registers, each step two independent
            instructions (multiply-add, add) or one (VNNI); no memory at all

A multiply-accumulate of int8 counts once, whatever the instruction does with it.
"""

import ctypes
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

UNIT = 1 << 18  # bytes of memory a thread takes at a time
STRIDE = 256  # bytes of one turn of the read loop
STREAMS = 4
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


def read_ir(streams: int) -> str:
    """read(base, units, next, sink): xor units into 32 bytes until the shared counter has none."""
    accumulators, step, part = range(STRIDE // 32), STRIDE // streams, UNIT // streams
    start = [
        f"%a{i} = phi <4 x i64> [zeroinitializer, %unit], [%s{i}, %line]" for i in accumulators
    ]
    turn = []
    for i in accumulators:
        stream, within = divmod(32 * i, step)
        turn += [
            f"%p{i} = getelementptr i8, ptr %at, i64 {stream * part + within}",
            f"%v{i} = load <4 x i64>, ptr %p{i}, align 32",
            f"%s{i} = xor <4 x i64> %a{i}, %v{i}",
        ]
    fold = [f"%f{i} = xor <4 x i64> %f{i - 1}, %s{i}" for i in accumulators if i]
    return "\n".join(
        [
            "define void @read(ptr %base, i64 %units, ptr %next, ptr %sink) {",
            "entry: br label %take",
            "take: %u = atomicrmw add ptr %next, i64 1 monotonic",
            "%more = icmp slt i64 %u, %units",
            "br i1 %more, label %unit, label %end",
            f"unit: %offset = mul i64 %u, {UNIT}",
            "%from = getelementptr i8, ptr %base, i64 %offset",
            "br label %line",
            "line: %i = phi i64 [0, %unit], [%j, %line]",
            *start,
            "%at = getelementptr i8, ptr %from, i64 %i",
            *turn,
            f"%j = add i64 %i, {step}",
            f"%again = icmp ult i64 %j, {part}",
            "br i1 %again, label %line, label %done",
            "done: %f0 = freeze <4 x i64> %s0",
            *fold,
            "%before = load <4 x i64>, ptr %sink, align 1",
            f"%after = xor <4 x i64> %before, %f{len(accumulators) - 1}",
            "store <4 x i64> %after, ptr %sink, align 1",
            "br label %take",
            "end: ret void",
            "}",
        ]
    )


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


def target_machine(cpu: str, features: tuple[str, ...]) -> llvm.TargetMachine:
    """A code generator for exactly this level and these features, whatever the host is."""
    for initialize in ("target", "asmprinter", "asmparser"):
        getattr(llvm, f"initialize_native_{initialize}")()
    wanted = ",".join(f"+{feature}" for feature in features)
    return llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=wanted, opt=3)


def parsed(ir: str) -> llvm.ModuleRef:
    """The module of an IR text, verified."""
    module = llvm.parse_assembly(ir)
    module.verify()
    return module


@cache
def _read(streams: int) -> tuple[llvm.ExecutionEngine, Callable[..., None]]:
    """`read` through so many streams; the engine owns the code."""
    engine = _compiled(read_ir(streams), target_machine("x86-64-v3", ()))
    arguments = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    return engine, ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address("read"))


@cache
def _peak(isa: str) -> tuple[llvm.ExecutionEngine, Callable[..., None]]:
    """The peak loop of an instruction set; the engine owns the code."""
    peak = PEAKS[isa]
    engine = _compiled(peak_ir(peak), target_machine(peak.cpu, peak.features))
    arguments = [ctypes.c_int64, ctypes.c_void_p]
    return engine, ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address("peak"))


def _compiled(ir: str, machine: llvm.TargetMachine) -> llvm.ExecutionEngine:
    engine = llvm.create_mcjit_compiler(parsed(ir), machine)
    engine.finalize_object()
    return engine


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


class Team:
    """Threads that do the same thing at the same time, each bound to a core of its own."""

    def __init__(self, threads: int) -> None:
        cpus = one_cpu_a_core()
        self.threads = threads
        self._operands = np.random.default_rng(0).integers(1, 15, (threads, 4096), np.uint8)
        self._sinks = self._operands.copy()
        self._pools = [
            ThreadPoolExecutor(1, initializer=_stay_on, initargs=(cpus[i % len(cpus)],))
            for i in range(threads)
        ]
        self._loops = 1 << 16
        self._together(lambda _sink: None)

    def _together(self, work: Callable[[int], None]) -> list[tuple[float, float]]:
        """When each thread began and ended; `work` gets the address of its thread's own memory."""
        futures = [
            pool.submit(_timed, work, sink.ctypes.data)
            for pool, sink in zip(self._pools, self._sinks, strict=True)
        ]
        return [future.result() for future in futures]

    def read(self, memory: np.ndarray, streams: int = 1) -> tuple[int, float]:
        """Bytes and seconds of one pass of all threads over the whole UNITs of `memory`."""
        _, code = _read(streams)
        taken = np.zeros(1, np.int64)
        base, units = memory.ctypes.data, memory.nbytes // UNIT
        spans = self._together(lambda sink: code(base, units, taken.ctypes.data, sink))
        began, ended = min(span[0] for span in spans), max(span[1] for span in spans)
        return units * UNIT, ended - began

    def peak(self, isa: str) -> tuple[int, float]:
        """Multiply-accumulates of all threads in the loop of `isa`, and the seconds of the mean."""
        _, code = _peak(isa)
        self._sinks[:] = self._operands  # zeros would draw less power than real products
        spans = self._together(lambda sink: code(self._loops, sink))
        seconds = [ended - began for began, ended in spans]
        if max(seconds) < PEAK_SECONDS / 2:
            self._loops *= 2
            return self.peak(isa)
        macs = self._loops * CHAINS * PEAKS[isa].lanes
        return macs * self.threads, self.threads / sum(1 / each for each in seconds)


def _stay_on(cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})


def _timed(work: Callable[[int], None], sink: int) -> tuple[float, float]:
    began = time.perf_counter()
    work(sink)
    return began, time.perf_counter()
