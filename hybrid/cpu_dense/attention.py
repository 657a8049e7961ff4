"""Latent attention in the absorbed form, for a block of tokens, a few heads at a time.

    query   q_nope W_UK | q_rope rotated        one row of kv_lora_rank + rope per (token, head)
    scores  query . cache row                   positions in blocks of 64, lane = position
    mixed   sum of softmax weights * c          lane = latent
    out     mixed W_UV                          v_head_dim per head

A unit is a few tokens times a few heads: it widens each block of the cache once for all its rows.
Blocks of positions start at multiples of 64, so neither the chunking of a prompt nor the cut into
units changes a bit. The expanded form would need 3.4 times less arithmetic for a long block
but rounds differently; one form for all is what keeps placement and chunking out of the tokens.
(DeepSeek-V2, arXiv 2405.04434, §2.1; spec §3.2.)
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201, ANN202 (compiled code: numba infers the types)

import numpy as np
from numba import carray

from hybrid.cpu_dense.latent import rotate
from hybrid.cpu_dense.matrix import MATRIX, even_split, matrix_at, multiply_tile, tiles_at_once
from hybrid.cpu_dense.panel import LANES, LINE_BYTES
from hybrid.cpu_dense.paneling import call_panel, clear
from hybrid.cpu_dense.records import offset, record
from hybrid.cpu_dense.softmax import BLOCK, STATE_BYTES, begin_row, finish_row, weigh_block
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import load_u32, store_f32, store_u32
from hybrid.cpu_experts.pool import parallel

MAX_ROWS = 128  # (token, head) rows of a unit: what fits a core's second-level cache
GROUP_TOKENS = 16
ALONE = 1 << 19  # multiply-adds below which one thread does it all: about 20 us on a Zen 3 core

ATTENTION, attention_at = record(
    "unit"
    " heads nope rope value latent"  # heads, and the parts of a head's vectors
    " q q_bytes"  # [tokens] rows of heads * (nope + rope) float32
    " cos sin table_bytes"
    " cache row_bytes"
    " paired plain"  # addresses of micro-kernels
    " out out_bytes"  # [tokens] rows of heads * value float32
    " scratch scratch_bytes query_bytes mixed_bytes"  # per worker: see `scratch_parts`
    " threads start tokens group_tokens group_heads",
    "scale",
    k_up=MATRIX,  # W_UK transposed and W_UV, one plane a head
    v_up=MATRIX,
)
A_K_UP, A_V_UP = offset(ATTENTION, "k_up"), offset(ATTENTION, "v_up")


@inlined
def run_attention(state, at):
    """Cut the block into units and run them on the pool."""
    job = carray(attention_at(at), 1)[0]
    job.group_tokens = min(job.tokens, GROUP_TOKENS)
    groups = (job.tokens + job.group_tokens - 1) // job.group_tokens
    share = job.heads
    positions = job.start + job.tokens
    if job.heads * job.tokens * job.latent * (job.nope + job.value + positions) >= ALONE:
        share = (job.heads * groups + job.threads - 1) // job.threads
    job.group_heads = max(1, min(job.heads, share, MAX_ROWS // job.group_tokens))
    head_groups = (job.heads + job.group_heads - 1) // job.group_heads
    parallel(state, job.unit, at, groups * head_groups)


@inlined
def scratch_parts(query_bytes, mixed_bytes, row_bytes):
    """Offsets of queries, mixed, scores, states, keys in a worker's scratch, and its size."""
    mixed = MAX_ROWS * query_bytes
    scores = mixed + MAX_ROWS * mixed_bytes
    states = scores + MAX_ROWS * BLOCK * 4
    keys = states + MAX_ROWS * STATE_BYTES
    return 0, mixed, scores, states, keys, keys + BLOCK * row_bytes


def attention_unit(at, unit, worker):
    """One group of tokens for one group of heads."""
    job = carray(attention_at(at), 1)[0]
    head_groups = (job.heads + job.group_heads - 1) // job.group_heads
    token = unit // head_groups * job.group_tokens
    head = unit % head_groups * job.group_heads
    tokens = min(job.group_tokens, job.tokens - token)
    heads = min(job.group_heads, job.heads - head)
    base = job.scratch + worker * job.scratch_bytes
    parts = scratch_parts(job.query_bytes, job.mixed_bytes, job.row_bytes)
    queries, mixed, scores = base + parts[0], base + parts[1], base + parts[2]
    states, keys = base + parts[3], base + parts[4]
    _absorb(at, job, token, tokens, head, heads, queries)
    for row in range(tokens * heads):
        begin_row(states + row * STATE_BYTES)
        clear(mixed + row * job.mixed_bytes, job.mixed_bytes // LINE_BYTES)
    end = job.start + token + tokens
    for block in range(0, end, BLOCK):
        positions = min(BLOCK, end - block)
        _gather_keys(job, block, positions, keys)
        _score(job, keys, positions, queries, tokens * heads, scores)
        _weigh(job, block, token, tokens, heads, scores, states, mixed)
        if block + BLOCK <= job.start + token + 1:  # every token sees the whole block
            _mix(job, block, BLOCK, tokens * heads, scores, mixed)
        else:
            for index in range(tokens):
                count = min(BLOCK, job.start + token + index + 1 - block)
                first = index * heads
                if count > 0:
                    rows = mixed + first * job.mixed_bytes
                    _mix(job, block, count, heads, scores + first * BLOCK * 4, rows)
    for row in range(tokens * heads):
        finish_row(states + row * STATE_BYTES, mixed + row * job.mixed_bytes, job.mixed_bytes)
    _project(at, job, token, tokens, head, heads, mixed)


@inlined
def _absorb(at, job, token, tokens, head, heads, queries):
    """Row token * heads + head of `queries`: q_nope W_UK | rotated q_rope."""
    matrix = carray(matrix_at(at + A_K_UP), 1)[0]
    for index in range(heads):
        q = job.q + token * job.q_bytes + (head + index) * (job.nope + job.rope) * 4
        rows = queries + index * job.query_bytes
        _per_head(
            matrix, head + index, q, job.q_bytes, tokens, rows, heads * job.query_bytes
        )  # fmt: skip
        for step in range(tokens):
            table = (token + step) * job.table_bytes
            row = rows + step * heads * job.query_bytes + job.latent * 4
            source = q + step * job.q_bytes + job.nope * 4
            rotate(source, job.cos + table, job.sin + table, job.rope // 2, row)
            if (job.latent + job.rope) % 2:
                store_f32(row, job.rope, np.float32(0.0))


@inlined
def _per_head(matrix, head, x, x_bytes, tokens, out, out_bytes):
    """out = W x for one head's W."""
    tiles = (matrix.rows + LANES - 1) // LANES
    first, together = head * tiles, tiles_at_once(tokens)
    tile = 0
    while tile < tiles:
        count = together if (tile + together) * LANES <= matrix.rows else 1
        multiply_tile(
            matrix, first, tile, count, x, x_bytes, tokens, out + tile * LINE_BYTES, out_bytes, 0
        )
        tile += count


@inlined
def _gather_keys(job, block, positions, keys):
    """Turn rows of the cache into tiles whose lane is a position; missing positions are zero."""
    pairs = (job.latent + job.rope + 1) // 2
    for first in range(0, positions, LANES):
        target = keys + first // LANES * pairs * LINE_BYTES
        for lane in range(LANES):
            if first + lane < positions:
                row = job.cache + (block + first + lane) * job.row_bytes
                for pair in range(pairs):
                    store_u32(target, pair * LANES + lane, load_u32(row, pair))
            else:
                for pair in range(pairs):
                    store_u32(target, pair * LANES + lane, np.uint32(0))


@inlined
def _score(job, keys, positions, queries, rows, scores):
    """scores[row][position] = queries[row] . keys[position]; a tile stays in the first cache."""
    pairs = (job.latent + job.rope + 1) // 2
    step = even_split(rows)
    clear(scores, rows * BLOCK // LANES)
    for first in range(0, positions, LANES):
        weights = keys + first // LANES * pairs * LINE_BYTES
        for row in range(0, rows, step):
            call_panel(
                job.paired, min(step, rows - row), 1, weights, 0,
                queries + row * job.query_bytes, job.query_bytes, pairs,
                scores + row * BLOCK * 4 + first * 4, BLOCK * 4,
            )  # fmt: skip


@inlined
def _weigh(job, block, token, tokens, heads, scores, states, mixed):
    """Scores to softmax weights, row by row: each token sees positions up to its own."""
    for row in range(tokens * heads):
        count = min(BLOCK, job.start + token + row // heads + 1 - block)
        if count > 0:
            weigh_block(
                scores + row * BLOCK * 4, count, job.scale, states + row * STATE_BYTES,
                mixed + row * job.mixed_bytes, job.mixed_bytes,
            )  # fmt: skip


@inlined
def _mix(job, block, count, rows, scores, mixed):
    """mixed[row] += weights[row] . c; a strip of 16 latents stays in the first cache."""
    source = job.cache + block * job.row_bytes
    step = even_split(rows)
    for strip in range(job.mixed_bytes // LINE_BYTES):
        for row in range(0, rows, step):
            call_panel(
                job.plain, min(step, rows - row), 1, source + strip * LANES * 2, job.row_bytes,
                scores + row * BLOCK * 4, BLOCK * 4, count,
                mixed + row * job.mixed_bytes + strip * LINE_BYTES, job.mixed_bytes,
            )  # fmt: skip


@inlined
def _project(at, job, token, tokens, head, heads, mixed):
    """out[token][head] = mixed W_UV."""
    matrix = carray(matrix_at(at + A_V_UP), 1)[0]
    for index in range(heads):
        _per_head(
            matrix, head + index, mixed + index * job.mixed_bytes, heads * job.mixed_bytes, tokens,
            job.out + token * job.out_bytes + (head + index) * job.value * 4, job.out_bytes,
        )  # fmt: skip
