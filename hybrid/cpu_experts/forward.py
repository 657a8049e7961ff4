"""One routed-expert layer over a batch: one call of compiled code, from ids to the combined output.

    check ids -> for each chunk of tokens: sort pairs by expert -> ENCODE, GATE_UP
                   -> for each stripe of columns: DOWN, COMBINE

or a part of that: the outputs of some experts without the sum, or the sum alone (job.py: `parts`).
Returns (status, value): OK, or what is wrong with the request and the value seen. Nothing is
written to `out` unless the status is OK.
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN202 (numba infers the types)

from typing import Any

from numba import carray, types

from hybrid.cpu_experts.compiled import function, inlined, once
from hybrid.cpu_experts.job import (
    CHUNK_TOKENS,
    COMBINE,
    DOWN,
    ENCODE,
    GATE_UP,
    OUTPUTS,
    SUM,
    cut_scratch,
    job_at,
    layer_at,
)
from hybrid.cpu_experts.kernel import bound_units, shared_units
from hybrid.cpu_experts.native import (
    call_kernel,
    load_i32,
    store_i32,
)
from hybrid.cpu_experts.phase import parallel, parallel_by_node

OK, BAD_ID, NOT_READY, MORE_SCRATCH = range(4)


@inlined
def _check_ids(layer, ids, count):
    """(OK, 0), or the first id that is out of range or has no record here."""
    for index in range(count):
        expert = load_i32(ids, index)
        if expert < -1 or expert >= layer.n_experts:
            return BAD_ID, expert
        if expert >= 0 and load_i32(layer.where, expert) < 0:
            return NOT_READY, expert
    return OK, 0


@inlined
def _note_segments(job):
    """Let every pair find its segment."""
    for segment in range(job.segments):
        for pair in range(load_i32(job.first, segment), load_i32(job.first, segment + 1)):
            store_i32(job.segment_of, pair, segment)


@inlined
def _sort_pairs(layer, job):
    """Counting sort of the pairs by expert; segments are the experts that occur."""
    n_experts, ids = layer.n_experts, job.ids
    slots = job.tokens * job.k
    for expert in range(n_experts):
        store_i32(job.cursor, expert, 0)
    for slot in range(slots):
        expert = load_i32(ids, slot)
        if expert >= 0:
            store_i32(job.cursor, expert, load_i32(job.cursor, expert) + 1)
    pairs, segments, longest = 0, 0, 0
    for expert in range(n_experts):
        count = load_i32(job.cursor, expert)
        if count > 0:
            store_i32(job.record, segments, load_i32(layer.where, expert))
            store_i32(job.first, segments, pairs)
            segments += 1
        store_i32(job.cursor, expert, pairs)
        pairs += count
        longest = max(longest, count)
    store_i32(job.first, segments, pairs)
    for slot in range(slots):
        expert, pair = load_i32(ids, slot), -1
        if expert >= 0:
            pair = load_i32(job.cursor, expert)
            store_i32(job.cursor, expert, pair + 1)
            store_i32(job.token_of, pair, slot // job.k)
            store_i32(job.itself, pair, pair)
            store_i32(job.slot_of, pair, slot)
        store_i32(job.place, slot, pair)
    job.segments = segments
    job.panels = 1 if longest >= job.panels_from else 0
    if job.panels:
        _note_segments(job)


@inlined
def _run_shared(layer, job, address, state, alone, phase):
    """A phase whose units any thread may take."""
    job.phase = phase
    units = shared_units(job, phase)
    if alone or (phase == ENCODE and units < 4):
        for unit in range(units):
            call_kernel(layer.kernel, address, unit, 0)
    else:
        parallel(state, layer.kernel, address, units)


@inlined
def _run_bound(layer, job, address, state, alone, phase):
    """A phase whose units read weights: threads begin with those of their own node."""
    job.phase = phase
    units = bound_units(job, phase)
    if alone:
        for unit in range(units):
            call_kernel(layer.kernel, address, unit, 0)
    elif job.nodes == 1:
        parallel(state, layer.kernel, address, units)
    else:
        parallel_by_node(state, layer.kernel, address, job.bounds)


@inlined
def _run_phases(layer, job, address, state, alone):
    if job.parts != SUM:
        _sort_pairs(layer, job)
        _run_shared(layer, job, address, state, alone, ENCODE)
        _run_bound(layer, job, address, state, alone, GATE_UP)
    for column in range(0, job.hidden, job.stripe):
        job.column, job.columns = column, min(job.stripe, job.hidden - column)
        if job.parts != SUM:
            _run_bound(layer, job, address, state, alone, DOWN)
        if job.parts != OUTPUTS:
            _run_shared(layer, job, address, state, alone, COMBINE)


def _forward(layer_address, job_address, x, ids, weights, out, pool, alone, parts, o):
    layer, job = carray(layer_at(layer_address), 1)[0], carray(job_at(job_address), 1)[0]
    (tokens, k), (state, workers, scratch, capacity) = ids.shape, pool
    if parts != SUM:
        status, value = _check_ids(layer, ids.ctypes.data, tokens * k)
        if status != OK:
            return status, value
    job.shards, job.nodes = layer.shards, layer.nodes
    job.hidden, job.intermediate = layer.hidden, layer.intermediate
    job.group_bytes, job.rows16, job.k, job.parts = layer.group_bytes, layer.rows16, k, parts
    job.panels_from, job.biased = layer.panels_from, layer.biased
    job.tokens = min(tokens, CHUNK_TOKENS)
    needed = cut_scratch(job, layer.n_experts, workers, scratch, o)
    if needed > capacity:
        return MORE_SCRATCH, needed
    for first in range(0, tokens, CHUNK_TOKENS):
        job.tokens = min(CHUNK_TOKENS, tokens - first)
        own = o + first * k * layer.hidden * 4 if o != 0 else 0
        cut_scratch(job, layer.n_experts, workers, scratch, own)
        job.ids = ids.ctypes.data + first * k * 4
        job.x = x.ctypes.data + first * layer.hidden * 4
        job.weights = weights.ctypes.data + first * k * 4
        job.out = out.ctypes.data + first * layer.hidden * 4
        _run_phases(layer, job, job_address, state, alone)
    return OK, 0


@once
def forward() -> Any:
    """forward(layer, job, x, ids, weights, out, (state, workers, scratch, capacity), alone,
    parts, o); o is an address, 0 for none.
    """
    rows = types.Array(types.float32, 2, "C", readonly=True)
    ids = types.Array(types.int32, 2, "C", readonly=True)
    out = types.Array(types.float32, 2, "C")
    pool = types.UniTuple(types.intp, 4)
    result = types.UniTuple(types.int64, 2)
    address = types.intp
    call = (address, address, rows, ids, rows, out, pool, types.boolean, types.int64, address)
    signature = result(*call)
    return function("forward", signature, _forward)
