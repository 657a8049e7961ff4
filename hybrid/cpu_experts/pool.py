"""Worker threads that live in compiled code, and the compiled `parallel` that gives them work.

One 64-byte line for each word that different threads write:

    sequence   counts posted phases; a worker that has seen the latest one sleeps on it (futex)
    gate       OPEN while a phase may be entered + the number of workers inside it
    next       the next unit to be taken
    sleepers   workers asleep on `sequence`: nobody to wake, no system call
    waiting    1 while the caller sleeps on `gate`
    stop       1 asks the workers to return
    workers    how many have come to life, each taking the next number; those above `limit` leave

The caller posts a phase, opens the gate, works along, closes the gate and waits for those inside.
A worker that wakes too late finds the gate closed and is not waited for, so a phase never takes
longer than on the caller alone plus one unit. Everything happens inside one call of compiled code:
a KeyboardInterrupt is seen before or after it, never while workers write.
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN201, ANN202 (numba infers the types)

import atexit
import os
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from hybrid.cpu_experts.compiled import function, inlined, once
from hybrid.cpu_experts.native import (
    HAS_FUTEX,
    atomic_add_i32,
    atomic_add_i64,
    atomic_and_i32,
    atomic_load_i32,
    atomic_swap_i32,
    atomic_swap_i64,
    call_kernel,
    compare_and_swap_i32,
    load_i64,
    nap,
    pause,
    sleep_while,
    store_i64,
    wake_all,
)
from hybrid.errors import KernelError, PlacementError

SEQUENCE, GATE, NEXT, SLEEPERS, WAITING, STOP, WORKERS, LIMIT, FUTEX, PHASE = range(0, 640, 64)
STATE_BYTES = 640  # PHASE: kernel, job, units (int64 each), written while the gate is closed
OPEN = np.int32(1 << 30)
SPINS = 1000  # pauses before sleeping: tens of microseconds
ONE, ZERO = np.int32(1), np.int32(0)


@inlined
def parallel(state, kernel, job, units):
    """Run kernel(job, unit, worker) for every unit on the caller and the pool's workers."""
    if units < 2 or atomic_load_i32(state + WORKERS) == 0:
        for unit in range(units):
            call_kernel(kernel, job, unit, 0)
    else:
        store_i64(state + PHASE, 0, kernel)
        store_i64(state + PHASE, 1, job)
        store_i64(state + PHASE, 2, units)
        atomic_swap_i64(state + NEXT, 0)
        atomic_swap_i32(state + GATE, OPEN)
        atomic_add_i32(state + SEQUENCE, ONE)
        if atomic_load_i32(state + SLEEPERS) > 0:
            wake_all(state + SEQUENCE)
        _take_units(state, 0)
        atomic_and_i32(state + GATE, np.int32(~OPEN))
        _join(state)


@inlined
def _take_units(state, worker):
    kernel, job = load_i64(state + PHASE, 0), load_i64(state + PHASE, 1)
    units = load_i64(state + PHASE, 2)
    unit = atomic_add_i64(state + NEXT, 1)
    while unit < units:
        call_kernel(kernel, job, unit, worker)
        unit = atomic_add_i64(state + NEXT, 1)


@inlined
def _join(state):
    spins = 0
    inside = atomic_load_i32(state + GATE)
    while inside != 0:
        if spins < SPINS:
            pause()
            spins += 1
        else:
            atomic_swap_i32(state + WAITING, ONE)
            _sleep(state, state + GATE, inside)
            atomic_swap_i32(state + WAITING, ZERO)
        inside = atomic_load_i32(state + GATE)


@inlined
def _sleep(state, word, value):
    if atomic_load_i32(state + FUTEX) != 0:
        sleep_while(word, value)
    else:
        nap()


@inlined
def _enter(state):
    while True:
        inside = atomic_load_i32(state + GATE)
        if inside & OPEN == 0:
            return False
        if compare_and_swap_i32(state + GATE, inside, np.int32(inside + 1)):
            return True


@inlined
def _leave(state):
    before = atomic_add_i32(state + GATE, np.int32(-1))
    if before == 1 and atomic_load_i32(state + WAITING) != 0:
        wake_all(state + GATE)


@inlined
def _await_change(state, seen):
    spins = 0
    while atomic_load_i32(state + SEQUENCE) == seen:
        if spins < SPINS:
            pause()
            spins += 1
        else:
            atomic_add_i32(state + SLEEPERS, ONE)
            _sleep(state, state + SEQUENCE, seen)
            atomic_add_i32(state + SLEEPERS, np.int32(-1))


def _work(state):
    worker = atomic_add_i32(state + WORKERS, ONE) + 1
    seen = ZERO
    while worker <= atomic_load_i32(state + LIMIT) and atomic_load_i32(state + STOP) == 0:
        _await_change(state, seen)
        seen = atomic_load_i32(state + SEQUENCE)
        if _enter(state):
            _take_units(state, worker)
            _leave(state)


def _stop(state):
    atomic_swap_i32(state + STOP, ONE)
    atomic_add_i32(state + SEQUENCE, ONE)
    wake_all(state + SEQUENCE)


@once
def work_loop() -> Any:
    """The compiled life of a worker: work(state), until it is asked to stop."""
    return function("work", types.void(types.intp), _work)


@once
def _stop_workers() -> Any:
    return function("stop", types.void(types.intp), _stop)


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that compiled code knows by its address, which starts a cache line."""

    memory: NDArray[np.int64]
    address: int
    nbytes: int


def _buffer(nbytes: int) -> Buffer:
    memory = np.zeros(nbytes // 8 + 9, np.int64)
    return Buffer(memory, (memory.ctypes.data + 63) // 64 * 64, nbytes)


class Pool:
    """`threads - 1` workers beside the caller; they start when first needed."""

    def __init__(self, threads: int, futex: bool = HAS_FUTEX) -> None:
        self.threads = threads
        self._futex = futex
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Forget workers and jobs: in a forked child neither exists."""
        self.lock = threading.Lock()  # one forward at a time: held around the compiled call
        self.scratch = _buffer(0)
        self._renew()

    def _renew(self) -> None:
        self._workers: list[threading.Thread] = []
        state = _buffer(STATE_BYTES)
        first = (state.address - state.memory.ctypes.data) // 8
        state.memory[first + LIMIT // 8] = self.threads - 1
        state.memory[first + FUTEX // 8] = self._futex
        self._state = state
        self.state = state.address

    def start(self) -> None:
        """Start the workers unless they run; call with the lock held."""
        work_loop()  # compiled here rather than in a worker,
        _stop_workers()  # or while the interpreter ends
        while len(self._workers) < self.threads - 1:
            worker = threading.Thread(target=_live, args=(self._state,), daemon=True)
            self._workers.append(worker)
            try:
                worker.start()
            except RuntimeError as error:
                self._workers.pop()
                raise KernelError(
                    f"cannot start expert thread {len(self._workers) + 1} of {self.threads} "
                    f"({error}); use threads={len(self._workers) + 1}"
                ) from None

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
            workers = self._workers
            if workers:
                _stop_workers()(self.state)
                self._renew()
            for worker in workers:
                worker.join(timeout=5.0)


def _live(state: Buffer) -> None:
    """A worker thread. Its frame keeps the state alive, whatever becomes of the pool."""
    work_loop()(state.address)


@once
def shared_pool(threads: int) -> Pool:
    """The process's pool of this size: layers share it, since they run one after another."""
    pool = Pool(threads)
    atexit.register(pool.close)
    return pool
