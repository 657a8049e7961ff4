"""SwiGLU: down(silu(gate x) * up x), of a dense layer or of the shared expert (spec §3.5).

gate and up are one matrix, gate's rows first, each padded to whole tiles; so their outputs lie in
one row, and silu(gate) * up overwrites the gate half.
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201 (compiled code: numba infers the types)

from numba import carray

from hybrid.cpu_dense.norm import TOKENS
from hybrid.cpu_dense.records import record
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.numerics import silu
from hybrid.cpu_experts.pool import parallel
from hybrid.cpu_experts.simd import load_f32x8, mul, store_f32x8

SWIGLU, swiglu_at = record("unit rows row_bytes half_bytes tokens")


@inlined
def run_swiglu(state, at):
    """Run a filled record on the pool."""
    job = carray(swiglu_at(at), 1)[0]
    parallel(state, job.unit, at, (job.tokens + TOKENS - 1) // TOKENS)


def swiglu_unit(at, unit, worker):
    """Rows unit * TOKENS …"""
    job = carray(swiglu_at(at), 1)[0]
    for token in range(unit * TOKENS, min((unit + 1) * TOKENS, job.tokens)):
        gate = job.rows + token * job.row_bytes
        up = gate + job.half_bytes
        for at in range(0, job.half_bytes, 32):
            store_f32x8(gate, at, mul(silu(load_f32x8(gate, at)), load_f32x8(up, at)))
