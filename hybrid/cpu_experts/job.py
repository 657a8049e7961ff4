"""What one forward call tells its kernel: sizes, addresses, and how the scratch memory is cut.

A (token, slot) of the routing whose id is not -1 is a pair. Pairs are sorted by expert, so that an
expert's weights are read once for all its tokens; `segment` s is expert[s] with the pairs
first[s] ... first[s+1]-1. Every part of the scratch starts on a cache line:

    x_rows [tokens]     encoded activations        token_of [pairs]    row of x_rows a pair reads
    h_rows [pairs]      encoded silu(gate) * up    itself   [pairs]    0, 1, 2 ...: row of h_rows
    o      [pairs, hidden] float32                 place    [tokens*k] the pair of a slot, or -1
    per worker: two tiles of [TOKENS, 32] float32  expert, first, cursor: the segments
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN201 (numba infers the types)

import numpy as np
from numba import from_dtype, types

from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import pointer_to

TOKENS = 16  # tokens that meet a weight block while it is in the core's cache
CHUNK_TOKENS = 512  # a longer batch is worked off in chunks, so that scratch stays bounded
WORKER_BYTES = 2 * TOKENS * 32 * 4
ENCODE, GATE_UP, DOWN, COMBINE = PHASES = tuple(range(4))

LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "records",  # address of [n_experts, record_bytes]
            "record_bytes",
            "n_experts",
            "hidden",
            "intermediate",
            "ready",  # address of [n_experts] bytes: 1 where the expert has been set
            "group_bytes",  # one encoded group of 32 activations
            "kernel",  # address of void(job, unit, worker): kernel.py
            "rows16",  # address of the instruction set's own part
        )
    ]
)

JOB = np.dtype(
    [
        (name, np.int64)
        for name in (
            "phase",
            "rows16",
            "records",
            "record_bytes",
            "hidden",
            "intermediate",
            "group_bytes",
            "tokens",
            "k",
            "pairs",
            "segments",
            "x",  # [tokens, hidden] float32
            "weights",  # [tokens, k] float32
            "out",  # [tokens, hidden] float32
            "x_rows",
            "h_rows",
            "o",
            "token_of",
            "itself",
            "place",
            "expert",
            "first",
            "cursor",
            "tiles",  # WORKER_BYTES for each worker
        )
    ]
)
Layer, Job = from_dtype(LAYER), from_dtype(JOB)
layer_at, job_at = pointer_to(Layer), pointer_to(Job)
KERNEL = types.void(types.CPointer(Job), types.intp, types.intp)  # (job, unit, worker)
ROWS16 = types.void(*[types.intp] * 8)  # block, groups, acts, stride, rows, n, out, out_stride


@inlined
def lines(nbytes):
    """`nbytes` rounded up to whole cache lines."""
    return (nbytes + 63) // 64 * 64


@inlined
def cut_scratch(job, n_experts, workers, base):
    """Set the scratch addresses of `job` for its sizes; return the bytes needed."""
    pairs = job.tokens * job.k
    at = base
    job.x_rows = at
    at += lines(job.tokens * (job.hidden // 32) * job.group_bytes)
    job.h_rows = at
    at += lines(pairs * (job.intermediate // 32) * job.group_bytes)
    job.o = at
    at += lines(pairs * job.hidden * 4)
    job.token_of = at
    at += lines(pairs * 4)
    job.itself = at
    at += lines(pairs * 4)
    job.place = at
    at += lines(pairs * 4)
    job.expert = at
    at += lines(n_experts * 4)
    job.first = at
    at += lines((n_experts + 1) * 4)
    job.cursor = at
    at += lines(n_experts * 4)
    job.tiles = at
    at += workers * WORKER_BYTES
    return at - base
