"""Kernels that write down who did what, and one that dies at its work.

A job is int64 [1 + units, 3]: row 0 counts the units done; row 1 + u holds the worker that did
unit u plus 1, how often it was done, and which of all units it was in time.
"""

import platform
from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hybrid.cpu_experts.compiled import callback, function
from hybrid.cpu_experts.native import atomic_add_i64, load_i64, nap, store_i64
from hybrid.cpu_experts.pool import parallel, parallel_by_node

_EXIT = {"x86_64": 60, "aarch64": 93}  # number of exit(2), which ends one thread, per machine
WORD = types.intp


@intrinsic
def end_thread(typing):
    """End the calling thread at once, without telling Python."""

    def codegen(context, builder, sig, args):
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word], var_arg=True)
        syscall = cgutils.get_or_insert_function(builder.module, kind, "syscall")
        builder.call(syscall, [word(_EXIT[platform.machine()]), word(0)])
        return context.get_dummy_value()

    return types.void(), codegen


def _note(job, unit, worker):
    row = job + (1 + unit) * 24
    store_i64(row, 0, worker + 1)
    store_i64(row, 1, load_i64(row, 1) + 1)
    store_i64(row, 2, atomic_add_i64(job, 1))
    nap()  # so that others get their turn on a machine of one core


def _die(job, unit, worker):
    """Workers die; the caller waits until one has begun to."""
    atomic_add_i64(job, 1)
    if worker > 0:
        end_thread()
    while load_i64(job, 0) < 2:
        nap()


def _shared(state, kernel, job, units):
    parallel(state, kernel, job, units)


def _by_node(state, kernel, job, bounds):
    parallel_by_node(state, kernel, job, bounds)


@cache
def note():
    """Address of the kernel that writes down."""
    return callback("test-note", types.void(WORD, WORD, WORD), _note)


@cache
def die():
    """Address of the kernel that ends the worker's thread."""
    return callback("test-die", types.void(WORD, WORD, WORD), _die)


@cache
def shared():
    """shared(state, kernel, job, units): one counter."""
    return function("test-shared", types.void(WORD, WORD, WORD, WORD), _shared)


@cache
def by_node():
    """by_node(state, kernel, job, bounds): a counter for each node."""
    return function("test-by-node", types.void(WORD, WORD, WORD, WORD), _by_node)


def run(pool, units, bounds=None, kernel=None):
    """One phase on a pool; returns the units' rows of the job, [units, 3]."""
    job = np.zeros((1 + units, 3), np.int64)
    address = (kernel or note()).address
    with pool.lock:
        pool.start()
        if bounds is None:
            shared()(pool.state, address, job.ctypes.data, units)
        else:
            edges = np.array(bounds, np.int64)
            by_node()(pool.state, address, job.ctypes.data, edges.ctypes.data)
        pool.check()
    return job[1:]
