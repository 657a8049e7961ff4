"""From the fused q_a | kv_a projection to what attention needs: q's latent, and one row of cache.

    projected row   q_a: q_lora_rank, padded | c: kv_lora_rank | k_rope: qk_rope_head_dim   float32
    q latent        RMSNorm(q_a)                                                            float32
    cache row       RMSNorm(c) | k_rope rotated | zeros up to a multiple of 16              bf16

The row is what attention reads, also for the token that wrote it: rounded once, the same for all.
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201 (compiled code: numba infers the types)

import numpy as np
from numba import carray

from hybrid.cpu_dense.norm import TOKENS, normalise
from hybrid.cpu_dense.records import record
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import load_f32, load_u32, store_f32, store_u16
from hybrid.cpu_experts.pool import parallel

LATENT, latent_at = record(
    "unit"
    " projected projected_bytes"
    " q_lora_rank kv_lora_rank rope"  # sizes of the three parts
    " c_bytes"  # where c starts in a projected row: q_a is padded to whole tiles
    " q_a_layernorm kv_a_layernorm"  # [q_lora_rank], [kv_lora_rank] float32
    " q_latent q_latent_bytes"
    " cache row_bytes"  # this layer's rows
    " cos sin table_bytes"  # [tokens] rows of rope / 2 float32
    " start tokens",
    "eps",
)


@inlined
def run_latent(state, at):
    """Run a filled record on the pool."""
    job = carray(latent_at(at), 1)[0]
    parallel(state, job.unit, at, (job.tokens + TOKENS - 1) // TOKENS)


@inlined
def rotate(source, cos, sin, pairs, target):
    """Turn adjacent pairs of a float32 vector; `target` may be `source` (spec §3.2)."""
    for pair in range(pairs):
        even, odd = load_f32(source, 2 * pair), load_f32(source, 2 * pair + 1)
        c, s = load_f32(cos, pair), load_f32(sin, pair)
        store_f32(target, 2 * pair, np.float32(np.float32(even * c) - np.float32(odd * s)))
        store_f32(target, 2 * pair + 1, np.float32(np.float32(even * s) + np.float32(odd * c)))


@inlined
def store_bf16(source, count, target):
    """Round float32 to bf16, half to even; a NaN stays a NaN."""
    for index in range(count):
        bits = load_u32(source, index)
        if bits & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):
            bits |= np.uint32(0x400000)
        else:
            bits += np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
        store_u16(target, index, np.uint16(bits >> np.uint32(16)))


def latent_unit(at, unit, worker):
    """Tokens unit * TOKENS … of a block. The projected rows are overwritten."""
    job = carray(latent_at(at), 1)[0]
    for token in range(unit * TOKENS, min((unit + 1) * TOKENS, job.tokens)):
        q_a = job.projected + token * job.projected_bytes
        c = q_a + job.c_bytes
        k_rope = c + job.kv_lora_rank * 4
        row = job.cache + (job.start + token) * job.row_bytes
        q_latent = job.q_latent + token * job.q_latent_bytes
        normalise(q_a, job.q_a_layernorm, job.q_lora_rank, job.eps, q_latent)
        normalise(c, job.kv_a_layernorm, job.kv_lora_rank, job.eps, c)
        table = token * job.table_bytes
        rotate(k_rope, job.cos + table, job.sin + table, job.rope // 2, k_rope)
        store_bf16(c, job.kv_lora_rank + job.rope, row)
        for index in range(job.kv_lora_rank + job.rope, job.row_bytes // 2):
            store_u16(row, index, np.uint16(0))
