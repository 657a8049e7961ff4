"""From bf16 weights to int8 codes: for each output row and 32 inputs one scale, symmetric.

    scale = largest |w| / 127, rounded up to bf16         so that no code leaves -127…127
    code  = w / scale, rounded half to even               so that |w - code * scale| <= scale / 2

A group of zeros has scale 0 and codes 0; one with an infinity or NaN has scale NaN, and so have all
outputs of its row.
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN201, ANN202 (compiled code: numba infers the types)

import numpy as np
from numba import carray

from hybrid.cpu_dense.frame import stack_line
from hybrid.cpu_dense.packing import pack_at
from hybrid.cpu_dense.panel import GROUP, GROUP_BYTES, LANES
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import float_of, load_u16, load_u32, store_f32, store_u8, store_u16

NAN = np.uint16(0x7FC0)
NOT_FINITE = np.uint32(0x7F80)  # |bits| of infinity; those of a NaN are larger


def code_unit(at, unit, worker):
    """Tile `unit` of a plane."""
    job = carray(pack_at(at), 1)[0]
    groups = (job.columns + GROUP - 1) // GROUP
    for group in range(groups):
        target = job.target + (unit * groups + group) * GROUP_BYTES
        inputs = min(GROUP, job.columns - group * GROUP)
        for lane in range(min(LANES, job.rows - unit * LANES)):
            row = job.source + (unit * LANES + lane) * job.row_step
            source = row + group * GROUP * job.column_step
            scale = _scale(_largest(source, job.column_step, inputs))
            store_u16(target + GROUP * LANES, lane, scale)
            if scale != 0 and scale != NAN:
                _encode(source, job.column_step, inputs, scale, target + lane)


@inlined
def _largest(source, step, inputs):
    """|bits| of the largest magnitude."""
    largest = np.uint32(0)
    for index in range(inputs):
        largest = max(largest, np.uint32(load_u16(source + index * step, 0)) & np.uint32(0x7FFF))
    return largest


@inlined
def _scale(largest):
    """bf16 bits of largest / 127, rounded up."""
    if largest >= NOT_FINITE:
        return NAN
    line = stack_line()
    store_f32(line, 0, float_of(np.uint32(largest << np.uint32(16))) / np.float32(127.0))
    return np.uint16((load_u32(line, 0) + np.uint32(0xFFFF)) >> np.uint32(16))


@inlined
def _encode(source, step, inputs, scale, target):
    divisor = float_of(np.uint32(np.uint32(scale) << np.uint32(16)))
    for index in range(inputs):
        bits = np.uint32(load_u16(source + index * step, 0))
        quotient = np.rint(float_of(np.uint32(bits << np.uint32(16))) / divisor)
        store_u8(target, index * LANES, np.uint8(np.int32(quotient) & np.int32(0xFF)))
