"""From the checkpoint's row-major nibbles to the tiles of the record, at the speed of memory.

A checkpoint word holds 8 inputs of one row, input i in bits 4i...4i+3. A lane of the record wants
inputs 0-3 in the low and 4-7 in the high nibbles of its bytes, so each word is permuted in place

    nibbles  7 6 5 4 3 2 1 0   ->   7 3 6 2 5 1 4 0        (most significant first)

and word j of a group goes to line j. Scales [out, in/32] are gathered into 16 behind each group.
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN202 (numba infers the types)

from typing import Any

import numpy as np
from numba import types

from hybrid.cpu_experts.compiled import function, inlined, once
from hybrid.cpu_experts.native import load_u16, load_u32, store_u16, store_u32
from hybrid.cpu_experts.record import GROUP_BYTES, ROWS, STRIDE

WORDS = 4  # words of one row in a group; also lines of a group


@inlined
def _spread(nibbles):
    """Four nibbles of the low half to the low nibbles of four bytes."""
    pairs = (nibbles | nibbles << np.uint32(8)) & np.uint32(0x00FF00FF)
    return (pairs | pairs << np.uint32(4)) & np.uint32(0x0F0F0F0F)


@inlined
def _lane(word):
    low = _spread(np.uint32(word & np.uint32(0xFFFF)))
    high = _spread(np.uint32(word >> np.uint32(16)))
    return np.uint32(low | high << np.uint32(4))


def _repack(packed, scale, blocks, groups, target, stride):
    """Row blocks of one matrix; block b goes to target + b * stride."""
    for block in range(blocks):
        tiles = target + block * stride
        for group in range(groups):
            tile = tiles + group * STRIDE
            for row in range(ROWS):
                source = ((block * ROWS + row) * groups + group) * WORDS
                for word in range(WORDS):
                    lane = _lane(load_u32(packed, source + word))
                    store_u32(tile, word * ROWS + row, lane)
            scales = tile + GROUP_BYTES
            for row in range(ROWS):
                source = (block * ROWS + row) * groups + group
                store_u16(scales, row, load_u16(scale, source))


@once
def repack() -> Any:
    """Compiled repack(packed, scale, blocks, groups, target, stride), all addresses and counts."""
    return function("repack", types.void(*[types.intp] * 6), _repack)
