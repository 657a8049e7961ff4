"""How fast memory can be read at all: a loop in LLVM IR, on threads of its own, one a core.

    read     8 accumulators of 32 bytes; threads of a node take UNIT bytes at a time from a counter
             they share and go through them from front to back
    streams  the same through the STREAMS equal parts of a unit at once, which suits prefetchers

It is written apart from the kernels that are held against it.
"""

import ctypes
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

from hybrid.cpu_experts.cores import Seat, pin
from hybrid.cpu_experts.isas import host_features

UNIT = 1 << 18  # bytes of memory a thread takes at a time
STRIDE = 256  # bytes of one turn of the read loop
STREAMS = 4
LINE = 64
SINK_BYTES = 4096  # of a thread's own, apart from the others' cache lines


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


def read_target() -> llvm.TargetMachine:
    """A code generator for what every host of this architecture that has vectors can run."""
    if platform.machine() != "x86_64":
        return target_machine("", ())
    return target_machine("x86-64-v3" if "avx2" in host_features() else "x86-64", ())


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


def compiled(ir: str, machine: llvm.TargetMachine) -> llvm.ExecutionEngine:
    """The engine that owns the machine code of an IR text."""
    engine = llvm.create_mcjit_compiler(parsed(ir), machine)
    engine.finalize_object()
    return engine


@cache
def _read(streams: int) -> tuple[llvm.ExecutionEngine, Callable[..., None]]:
    """`read` through so many streams, and what owns its code."""
    engine = compiled(read_ir(streams), read_target())
    arguments = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    return engine, ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address("read"))


class Team:
    """Threads that do the same thing at the same time, each on a core of its own."""

    def __init__(self, seats: Sequence[Seat]) -> None:
        """A thread for each seat; its node says which memory it reads."""
        self.seats = tuple(seats)
        self._sinks = np.zeros((len(seats), SINK_BYTES), np.uint8)
        self._pools = [
            ThreadPoolExecutor(1, initializer=pin, initargs=(seat.core,)) for seat in seats
        ]
        self.together([_nothing] * len(seats))

    @property
    def threads(self) -> int:
        """How many there are."""
        return len(self.seats)

    def together(self, work: Sequence[Callable[[int], None]]) -> list[tuple[float, float]]:
        """When each began and ended its own piece, called with the address of its own memory."""
        futures = [
            pool.submit(_timed, each, sink.ctypes.data)
            for pool, each, sink in zip(self._pools, work, self._sinks, strict=True)
        ]
        return [future.result() for future in futures]

    def read_nodes(
        self, memories: Sequence[NDArray[np.uint8]], streams: int = 1
    ) -> tuple[int, float]:
        """Bytes and seconds of one pass over the whole UNITs of every node's memory.

        `memories` [nodes]: each is read by the threads whose seat names its node.
        """
        _, code = _read(streams)
        taken = np.zeros((len(memories), LINE // 8), np.int64)  # a cache line for each counter
        units = [memory.nbytes // UNIT for memory in memories]

        def pass_of(node: int, sink: int) -> None:
            code(memories[node].ctypes.data, units[node], taken[node].ctypes.data, sink)

        spans = self.together([partial(pass_of, seat.node) for seat in self.seats])
        began, ended = min(span[0] for span in spans), max(span[1] for span in spans)
        return sum(units) * UNIT, ended - began

    def close(self) -> None:
        """End the threads."""
        for pool in self._pools:
            pool.shutdown()


def _nothing(_: int) -> None:
    pass


def _timed(work: Callable[[int], None], sink: int) -> tuple[float, float]:
    began = time.perf_counter()
    work(sink)
    return began, time.perf_counter()
