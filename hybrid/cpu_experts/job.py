"""What one forward call tells its kernel: sizes, addresses, and how the scratch memory is cut.

A (token, slot) of the routing whose id is not -1 is a pair. Pairs are sorted by expert, so that an
expert's weights are read once for all its tokens; `segment` s is record[s] of the shards with the
pairs first[s] ... first[s+1]-1. Every part of the scratch starts on a cache line:

    x_rows [tokens]     encoded activations        token_of [pairs]    row of x_rows a pair reads
    x_panels [pairs]    the same, see below        itself   [pairs]    0, 1, 2 ...
    h_rows [pairs]      encoded silu(gate) * up    slot_of  [pairs]    where in o its output goes
    o      [tokens*k, columns] float32             place    [tokens*k] the pair of a slot, or -1
    per worker: a tile of [MAX_ROWS, 64] float32   record, first, cursor: the segments
                                                   bounds: the units of each node

A segment of many pairs is a panel in x_panels and in h_rows: for each group, that group of all its
pairs side by side. Its kernel takes a group of all rows at a time and then finds them in one place;
rows that lie pages apart made prefill a sixth slower (docs/log.md). In `segment_of`, filled only
where there are panels, a pair finds its segment.

`columns` is a stripe of the hidden size: DOWN and COMBINE go through the stripes one after another,
so that o stays small however long the batch is. A call that computes only some of a token's experts
(layer.py: `outputs`) gets an o from its caller instead, whole rows [tokens*k, hidden], and leaves
COMBINE to a later one.
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN201 (numba infers the types)

import numpy as np
from numba import from_dtype, types

from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import pointer_to
from hybrid.cpu_experts.record import ROWS
from hybrid.cpu_experts.rows.kernel import MAX_ROWS, WIDE

CHUNK_TOKENS = 2048  # a longer batch is worked off in chunks, so that scratch stays bounded
STRIPE_BYTES = 64 << 20  # of o
STRIPE_GRAIN = 256  # columns: a stripe is a multiple, so that DOWN units do not straddle
WORKER_BYTES = MAX_ROWS * WIDE * ROWS * 4
ENCODE, GATE_UP, DOWN, COMBINE = range(4)
WHOLE, OUTPUTS, SUM = range(3)  # all phases, all but COMBINE, COMBINE alone

LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "shards",  # address of [nodes] SHARD
            "nodes",  # 1, or the pool's
            "n_experts",
            "hidden",
            "intermediate",
            "where",  # address of int32 [n_experts]: which record of the shards, -1 for none
            "group_bytes",  # one encoded group of 32 activations
            "kernel",  # address of void(job, unit, worker): kernel.py
            "rows16",  # address of the instruction set's own part
            "panels_from",  # pairs of a segment from which on it is a panel
            "biased",  # 1 if panels hold codes + 128
        )
    ]
)

SHARD = np.dtype(  # shards.py
    [
        (name, np.int64)
        for name in (
            "records",  # address of [records, record_bytes]
            "record_bytes",
            "gate",  # first group of 32 intermediate rows
            "gates",
            "down",  # first row block of the output
            "downs",
        )
    ]
)

JOB = np.dtype(
    [
        (name, np.int64)
        for name in (
            "phase",
            "rows16",
            "shards",
            "nodes",
            "bounds",  # [nodes + 1]: the phase's units by node
            "hidden",
            "intermediate",
            "group_bytes",
            "panels_from",
            "biased",
            "panels",  # 1 if some segment is one
            "x_stride",  # bytes from one encoded row to the next
            "h_stride",
            "column",  # first of the stripe
            "columns",  # of the stripe
            "stripe",  # columns of a full stripe: row length of o
            "parts",  # WHOLE, OUTPUTS or SUM
            "tokens",
            "k",
            "segments",
            "x",  # [tokens, hidden] float32
            "ids",  # [tokens, k] int32
            "weights",  # [tokens, k] float32
            "out",  # [tokens, hidden] float32
            "x_rows",
            "x_panels",
            "h_rows",
            "o",
            "token_of",
            "itself",
            "slot_of",
            "place",
            "segment_of",
            "record",
            "first",
            "cursor",
            "tiles",  # WORKER_BYTES for each worker
        )
    ]
)
Layer, Job, Shard = from_dtype(LAYER), from_dtype(JOB), from_dtype(SHARD)
layer_at, job_at, shard_at = pointer_to(Layer), pointer_to(Job), pointer_to(Shard)
SHARD_BYTES = SHARD.itemsize
KERNEL = types.void(types.CPointer(Job), types.intp, types.intp)  # (job, unit, worker)
ROWS16 = types.void(*[types.intp] * 9)  # block, blocks, groups, acts, stride, step, index, n, out


@inlined
def lines(nbytes):
    """`nbytes` rounded up to whole cache lines."""
    return (nbytes + 63) // 64 * 64


@inlined
def row_stride(inputs, group_bytes):
    """Bytes of an encoded row: an odd number of lines, so that rows do not share cache sets."""
    return ((inputs // 32 * group_bytes + 63) // 64 | 1) * 64


@inlined
def cut_scratch(job, n_experts, workers, base, o):
    """Set the scratch addresses of `job` for its sizes; return the bytes needed.

    `o` is the address of the caller's, with whole rows; 0 makes room for one here.
    """
    pairs = job.tokens * job.k
    job.x_stride = row_stride(job.hidden, job.group_bytes)
    job.h_stride = row_stride(job.intermediate, job.group_bytes)
    fit = STRIPE_BYTES // (4 * max(1, pairs)) // STRIPE_GRAIN * STRIPE_GRAIN
    job.stripe = min(job.hidden, max(fit, STRIPE_GRAIN))
    at = base
    job.x_rows = at
    at += job.tokens * job.x_stride
    job.x_panels = at
    if pairs >= job.panels_from:
        at += pairs * job.x_stride
    job.h_rows = at
    at += pairs * job.h_stride
    job.o = at
    if o != 0:
        job.o, job.stripe = o, job.hidden
    else:
        at += lines(pairs * job.stripe * 4)
    job.token_of = at
    at += lines(pairs * 4)
    job.itself = at
    at += lines(pairs * 4)
    job.slot_of = at
    at += lines(pairs * 4)
    job.place = at
    at += lines(pairs * 4)
    job.segment_of = at
    at += lines(pairs * 4)
    job.record = at
    at += lines(n_experts * 4)
    job.first = at
    at += lines((n_experts + 1) * 4)
    job.cursor = at
    at += lines(n_experts * 4)
    job.bounds = at
    at += lines((job.nodes + 1) * 8)
    job.tiles = at
    at += workers * WORKER_BYTES
    return at - base
