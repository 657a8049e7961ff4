"""Worker threads that live in compiled code, and the compiled `parallel` that gives them work.

    pool = shared_pool(threads)
    with pool.lock:              # one call at a time
        pool.start()             # the first one starts the threads
        compiled(..., pool.state)        # parallel(state, kernel, job, units), any number of times
        pool.check()             # KernelError if a worker died at it: what was computed is lost

Threads start late, sleep when idle and are pinned to cores of their own where there are enough
(cores.py). phase.py says what they do.
"""

import atexit
import itertools
import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hybrid.cpu_experts import phase
from hybrid.cpu_experts.compiled import once
from hybrid.cpu_experts.cores import Seat, current_core, pin, seats, shares
from hybrid.cpu_experts.native import HAS_FUTEX
from hybrid.cpu_experts.phase import parallel, parallel_by_node, work_loop
from hybrid.cpu_experts.topology import Topology, read_topology
from hybrid.errors import KernelError, PlacementError

__all__ = ["Buffer", "Pool", "parallel", "parallel_by_node", "shared_pool", "work_loop"]

CHECK_S = 0.1  # how often a caller that waits looks whether its workers live
_AGAIN = "the next call starts new ones; if this happens again, use threads=1"


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that compiled code knows by its address, which starts a cache line."""

    memory: NDArray[np.int64]
    address: int
    nbytes: int

    def words(self, offset: int) -> NDArray[np.int64]:
        """What lies `offset` bytes after the address."""
        return self.memory[(self.address - self.memory.ctypes.data + offset) // 8 :]


def _buffer(nbytes: int) -> Buffer:
    memory = np.zeros(nbytes // 8 + 9, np.int64)
    return Buffer(memory, (memory.ctypes.data + 63) // 64 * 64, nbytes)


@dataclass(frozen=True, slots=True)
class Crew:
    """Threads and the state they share. It ends with them: new threads get a new state."""

    state: Buffer
    failed: NDArray[np.int64]  # not 0 at the start: a thread died inside a phase
    seats: list[Seat] = field(default_factory=list)  # the caller's first; empty until the start
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    threads: list[threading.Thread] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # why, for each thread that ended unasked

    def line(self, worker: int) -> NDArray[np.int64]:
        """What phase.py calls the line of a worker."""
        nodes = int(self.state.words(phase.FIXED)[phase.NODES])
        return self.state.words(phase.NODES_AT + (nodes + worker) * phase.LINE)


class Pool:
    """`threads - 1` workers beside the caller; they start when first needed.

    It has `nodes` nodes; `shares` tells for each of them where its memory is best allocated.
    """

    def __init__(
        self, threads: int, futex: bool = HAS_FUTEX, topology: Topology | None = None
    ) -> None:
        self.threads = threads
        self._topology = topology or read_topology()
        self.shares = shares(self._topology, threads)
        self.nodes = len(self.shares)
        self._futex = futex
        self._reset()
        if hasattr(os, "register_at_fork"):
            reset = weakref.WeakMethod(self._reset)  # or no pool would ever be forgotten
            os.register_at_fork(after_in_child=lambda: (own := reset()) and own())

    def _reset(self) -> None:
        """Forget workers and jobs: in a forked child neither exists."""
        self.lock = threading.Lock()  # one forward at a time: held around the compiled call
        self.scratch = _buffer(0)
        self._renew()

    def _renew(self) -> None:
        state = _buffer(phase.state_bytes(self.nodes, self.threads))
        fixed = state.words(phase.FIXED)
        fixed[phase.FUTEX] = self._futex
        fixed[phase.NODES] = self.nodes
        fixed[phase.THREADS] = self.threads
        fixed[phase.PROCESS] = os.getpid()
        fixed[phase.NANOSECONDS] = round(CHECK_S * 1e9)
        self._crew = Crew(state, state.words(phase.FAILED))
        self.state = state.address

    def start(self) -> None:
        """Start the workers unless they run; call with the lock held.

        Raises KernelError if a thread cannot start, or if one has died since the last call.
        """
        self.check()
        crew = self._crew
        if crew.ended:
            self._dismiss()
            raise KernelError(f"an expert thread ended ({crew.ended[0]}); {_AGAIN}")
        if len(crew.threads) < self.threads - 1:
            if not crew.seats:
                self._take_seats(crew)
            self._start_missing(crew)

    def check(self) -> None:
        """Raise KernelError if a worker died at work: call it after the compiled call, lock held.

        One that died at rest has spoilt nothing; `start` tells of it.
        """
        if self._crew.failed[0]:
            self._dismiss()
            raise KernelError(f"an expert thread died at work and the result is lost; {_AGAIN}")

    def _take_seats(self, crew: Crew) -> None:
        """Compile what the threads run, here rather than in one of them, and say where each is."""
        crew.state.words(phase.FIXED)[phase.LEAD] = phase.lead().address
        work_loop()
        phase.stop_workers()  # or it would be compiled while the interpreter ends
        crew.seats[:] = seats(self.shares, self._topology, current_core())
        for worker, seat in enumerate(crew.seats):
            crew.line(worker)[phase.NODE] = seat.node

    def _start_missing(self, crew: Crew) -> None:
        while len(crew.threads) < self.threads - 1:
            thread = threading.Thread(target=_live, args=(crew,), daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                started = len(crew.threads) + 1
                raise KernelError(
                    f"cannot start expert thread {started} of {self.threads} ({error}); "
                    f"use threads={started}"
                ) from None
            crew.threads.append(thread)

    def _dismiss(self) -> list[threading.Thread]:
        """Ask the workers to leave and forget them; they hold on to the state until they have."""
        threads = self._crew.threads
        if threads:
            phase.stop_workers()(self.state)
            self._renew()
        return threads

    def grow_scratch(self, nbytes: int) -> None:
        """Make room for a larger batch; call with the lock held."""
        try:
            self.scratch = _buffer(nbytes)
        except MemoryError:
            raise PlacementError(
                f"a batch needs {nbytes / 2**30:.1f} GiB beside the experts; use smaller batches"
            ) from None

    def close(self) -> None:
        """Stop the workers and wait for them; a later forward starts new ones."""
        with self.lock:
            for thread in self._dismiss():
                thread.join(timeout=5.0)


def _live(crew: Crew) -> None:
    """A worker thread. Its frame keeps the state alive, whatever becomes of the pool."""
    worker = next(crew.numbers)
    if worker >= len(crew.seats):
        return  # an interrupted start was repeated: all seats are taken
    why = "its traceback was printed"
    try:
        pin(crew.seats[worker].core)
        crew.line(worker)[phase.THREAD] = threading.get_native_id()
        work_loop()(crew.state.address, worker)
        why = ""
    except (MemoryError, OSError, RuntimeError) as error:
        why = f"{type(error).__name__}: {error}"
    finally:
        if why:
            crew.ended.append(why)


@once
def shared_pool(threads: int) -> Pool:
    """The process's pool of this size: layers share it, since they run one after another."""
    pool = Pool(threads)
    atexit.register(pool.close)
    return pool
