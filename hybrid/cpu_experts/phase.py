"""One phase of work on a pool, in compiled code: post it, take units, wait for those inside.

A pool's state is a row of 64-byte lines, one for each word that different threads write:

    sequence   counts posted phases; a worker that has seen the latest one sleeps on it (futex)
    gate       OPEN while a phase may be entered + the number of workers inside it
    sleepers   workers asleep on `sequence`: nobody to wake, no system call
    waiting    1 while the caller sleeps on `gate`
    stop       1 asks the workers to return
    workers    how many have come to life
    failed     1 once a worker died inside a phase
    fixed      futex, nodes, threads, process id, timespec (2), address of `lead`: set beforehand
    phase      kernel, job, ranges: written while the gate is closed
    node       next unit, end: a line for each node
    worker     node, inside, thread id: a line for each thread; the caller is worker 0

The caller posts a phase, opens the gate, works along, closes the gate and waits for those inside.
A worker that wakes too late finds the gate closed and is not waited for, so a phase never takes
longer than on the caller alone plus one unit. A thread takes units of its own node first and then
helps the others, starting with the next one. Everything happens inside one call of compiled code:
a KeyboardInterrupt is seen before or after it, never while workers write.

A thread that died inside a phase would be waited for for ever. So a caller that has to sleep looks
ten times a second whether those inside still live, and marks the state as failed if not.
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN201, ANN202 (numba infers the types)

from typing import Any

import numpy as np
from numba import types

from hybrid.cpu_experts.compiled import callback, function, inlined, once
from hybrid.cpu_experts.native import (
    atomic_add_i32,
    atomic_add_i64,
    atomic_and_i32,
    atomic_load_i32,
    atomic_swap_i32,
    call_kernel,
    compare_and_swap_i32,
    load_i64,
    nap,
    pause,
    sleep_while,
    store_i64,
    wake_all,
)
from hybrid.cpu_experts.syscalls import is_alive, sleep_at_most

LINE = 64  # bytes
LINES = 10  # before the lines of nodes and workers
SEQUENCE, GATE, SLEEPERS, WAITING, STOP, WORKERS, FAILED, FIXED, PHASE, NODES_AT = range(
    0, LINES * LINE, LINE
)
FUTEX, NODES, THREADS, PROCESS, SECONDS, NANOSECONDS, LEAD = range(7)  # in `fixed`
KERNEL, JOB, RANGES = range(3)  # in `phase`
NEXT, END = range(2)  # in a node's line
NODE, INSIDE, THREAD = range(3)  # in a worker's line
OPEN = np.int32(1 << 30)
SPINS = 1000  # pauses before sleeping: tens of microseconds
ONE, ZERO = np.int32(1), np.int32(0)


def state_bytes(nodes: int, threads: int) -> int:
    """Size of the state of a pool."""
    return NODES_AT + (nodes + threads) * LINE


@inlined
def parallel(state, kernel, job, units):
    """Run kernel(job, unit, worker) for every unit on the caller and the pool's workers."""
    if units < 2 or atomic_load_i32(state + WORKERS) == 0:
        for unit in range(units):
            call_kernel(kernel, job, unit, 0)
    else:
        _set_range(state, 0, 0, units)
        _run(state, kernel, job, 1)


@inlined
def parallel_by_node(state, kernel, job, bounds):
    """The same where units bounds[k] ... bounds[k+1]-1 have their memory on the pool's node k.

    `bounds` is the address of int64 [nodes + 1], ascending; nodes is that of the pool.
    """
    nodes = load_i64(state + FIXED, NODES)
    first, last = load_i64(bounds, 0), load_i64(bounds, nodes)
    if last - first < 2 or atomic_load_i32(state + WORKERS) == 0:
        for unit in range(first, last):
            call_kernel(kernel, job, unit, 0)
    else:
        for node in range(nodes):
            _set_range(state, node, load_i64(bounds, node), load_i64(bounds, node + 1))
        _run(state, kernel, job, nodes)


@inlined
def _set_range(state, node, first, end):
    store_i64(state + NODES_AT + node * LINE, NEXT, first)
    store_i64(state + NODES_AT + node * LINE, END, end)


@inlined
def _run(state, kernel, job, ranges):
    """Post the phase; the rest is called by address, so that callers stay small."""
    store_i64(state + PHASE, KERNEL, kernel)
    store_i64(state + PHASE, JOB, job)
    store_i64(state + PHASE, RANGES, ranges)
    call_kernel(load_i64(state + FIXED, LEAD), state, 0, 0)


def _lead(state, _unit, _worker):
    """The caller's part of a posted phase."""
    atomic_swap_i32(state + GATE, OPEN)
    atomic_add_i32(state + SEQUENCE, ONE)
    if atomic_load_i32(state + SLEEPERS) > 0:
        wake_all(state + SEQUENCE)
    _take_units(state, 0)
    atomic_and_i32(state + GATE, np.int32(~OPEN))
    _join(state)


@inlined
def _take_units(state, worker):
    kernel, job = load_i64(state + PHASE, KERNEL), load_i64(state + PHASE, JOB)
    ranges = load_i64(state + PHASE, RANGES)
    own = load_i64(_worker_line(state, worker), NODE)
    for step in range(ranges):
        # own % ranges, and with one range always that one, without a division
        node = 0 if ranges == 1 else own + step - (ranges if own + step >= ranges else 0)
        line = state + NODES_AT + node * LINE
        end = load_i64(line, END)
        unit = atomic_add_i64(line, 1)
        while unit < end:
            call_kernel(kernel, job, unit, worker)
            unit = atomic_add_i64(line, 1)


@inlined
def _worker_line(state, worker):
    return state + NODES_AT + (load_i64(state + FIXED, NODES) + worker) * LINE


@inlined
def _join(state):
    """Wait until nobody is inside but the dead."""
    spins, dead = 0, ZERO
    inside = atomic_load_i32(state + GATE)
    while inside != dead:
        if spins < SPINS:
            pause()
            spins += 1
        else:
            before = inside
            atomic_swap_i32(state + WAITING, ONE)
            if load_i64(state + FIXED, FUTEX) != 0:
                sleep_at_most(state + GATE, inside, state + FIXED + SECONDS * 8)
            else:
                nap()
            atomic_swap_i32(state + WAITING, ZERO)
            inside = atomic_load_i32(state + GATE)
            if inside == before:
                dead = _dead_inside(state)
        inside = atomic_load_i32(state + GATE)
    if dead > ZERO:
        atomic_swap_i32(state + FAILED, ONE)
        atomic_swap_i32(state + GATE, ZERO)


@inlined
def _dead_inside(state):
    dead, process = ZERO, load_i64(state + FIXED, PROCESS)
    for worker in range(1, load_i64(state + FIXED, THREADS)):
        line = _worker_line(state, worker)
        if load_i64(line, INSIDE) != 0 and not is_alive(process, load_i64(line, THREAD)):
            dead = np.int32(dead + ONE)
    return dead


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
            if load_i64(state + FIXED, FUTEX) != 0:
                sleep_while(state + SEQUENCE, seen)
            else:
                nap()
            atomic_add_i32(state + SLEEPERS, np.int32(-1))


def _work(state, worker):
    line = _worker_line(state, worker)
    atomic_add_i32(state + WORKERS, ONE)
    seen = ZERO
    while atomic_load_i32(state + STOP) == 0:
        _await_change(state, seen)
        seen = atomic_load_i32(state + SEQUENCE)
        if _enter(state):
            store_i64(line, INSIDE, 1)
            _take_units(state, worker)
            store_i64(line, INSIDE, 0)
            _leave(state)


def _stop(state):
    atomic_swap_i32(state + STOP, ONE)
    atomic_add_i32(state + SEQUENCE, ONE)
    wake_all(state + SEQUENCE)


@once
def lead() -> Any:
    """The C function lead(state, 0, 0) whose address the state holds."""
    return callback("lead", types.void(*[types.intp] * 3), _lead)


@once
def work_loop() -> Any:
    """The compiled life of a worker: work(state, worker), until it is asked to stop."""
    return function("work", types.void(types.intp, types.intp), _work)


@once
def stop_workers() -> Any:
    """stop(state): every worker returns as soon as it is outside a phase."""
    return function("stop", types.void(types.intp), _stop)
