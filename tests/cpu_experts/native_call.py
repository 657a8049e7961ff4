"""Call the compiled pieces directly: one matrix, given activation rows, any instruction set.

    guard | out[0] | out[1] | ... out[n-1] | guard

`rows16` writes into memory between two guards, which must come back as they were.
"""

import ctypes

import numpy as np

from hybrid.cpu_experts import dispatch
from hybrid.cpu_experts.layer import ExpertLayer
from hybrid.cpu_experts.record import ROWS, STRIDE, row_block_bytes
from hybrid.cpu_experts.repack import repack
from hybrid.cpu_experts.rows.kernel import MAX_ROWS, WIDE
from tests.reference import experts as reference
from tests.reference.rows16 import GROUPS

GUARD = 64  # floats on either side of the results
UNTOUCHED = 0xA5A5A5A5


def same_bits(a, b):
    """Equal bit for bit; any NaN equals any NaN."""
    both_nan = np.isnan(a) & np.isnan(b)
    return a.shape == b.shape and bool(np.all((a.view(np.uint32) == b.view(np.uint32)) | both_nan))


def encode(mode, x):
    """Activation rows [n, K] as rows16 reads them, GROUPS[mode] [n, K/32]."""
    rows = np.zeros((len(x), x.shape[1] // 32), GROUPS[mode])
    for row, values in zip(rows, x, strict=True):
        if mode == "bf16":
            row["x"] = reference.round_bf16(values).reshape(-1, 32)
            continue
        codes, row["scale"] = reference.quantise(values, mode)
        row["offset"] = 8 * codes.sum(axis=1)
        if mode == "int8":
            row["codes"] = codes
        else:
            row["hi"], row["lo"] = reference.planes(codes)
    return rows


def biased(mode, acts):
    """The same with codes + 128 in the place of codes, and nothing in that of the sum."""
    acts = acts.copy()
    for plane in {"int8": ("codes",), "int16": ("hi", "lo")}[mode]:
        acts[plane].view(np.uint8)[:] ^= 0x80
    acts["offset"] = 0x7FABCDEF
    return acts


def call_rows16(address, blocks, acts, index):
    """The C function at an address: blocks uint8 [blocks, block bytes], acts [rows, groups]."""
    count, n = len(blocks), len(index)
    memory = np.full(2 * GUARD + n * count * ROWS, UNTOUCHED, np.uint32)
    index = np.array(index, np.int32)
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 9)(address)(
        blocks.ctypes.data, count, blocks.shape[1] // STRIDE, acts.ctypes.data, *acts.strides,
        index.ctypes.data, n, memory.ctypes.data + 4 * GUARD,
    )  # fmt: skip
    assert (memory[:GUARD] == UNTOUCHED).all(), "written before out"
    assert (memory[-GUARD:] == UNTOUCHED).all(), "written after out"
    return memory[GUARD:-GUARD].view(np.float32).reshape(n, count * ROWS)


def rows16(isa, mode, blocks, acts, index=None):
    """The results float32 [n, blocks * 16], codes biased where this kernel wants them so."""
    index = np.arange(len(acts)) if index is None else index
    if len(index) >= dispatch.panels_from(mode) and dispatch.biased(isa, mode):
        acts = biased(mode, acts)
    return call_rows16(dispatch.rows16(isa, mode), blocks, acts, index)


def tiles(matrix):
    """The row blocks of one matrix, uint8 [rows/16, block bytes]."""
    rows, groups = matrix.scale.shape
    memory = np.zeros((rows // 16, row_block_bytes(groups * 32)), np.uint8)
    packed, scale = np.ascontiguousarray(matrix.packed), np.ascontiguousarray(matrix.scale)
    repack()(
        packed.ctypes.data, scale.ctypes.data, rows // 16, groups, memory.ctypes.data,
        memory.shape[1],
    )  # fmt: skip
    return memory


def matvec(isa, mode, matrix, x, picks=None):
    """matrix times the rows of x that `picks` lists -> float32 [len(picks), out].

    In calls of as many rows and row blocks as the layer's.
    """
    picks = np.arange(len(x)) if picks is None else np.array(picks)
    acts, blocks = encode(mode, x), tiles(matrix)
    out = np.full((len(picks), len(matrix.packed)), np.nan, np.float32)
    for row in range(0, len(picks), MAX_ROWS):
        index = picks[row : row + MAX_ROWS]
        for at in range(0, len(blocks), WIDE):
            part = blocks[at : at + WIDE]
            columns = slice(at * ROWS, (at + len(part)) * ROWS)
            out[row : row + len(index), columns] = rows16(isa, mode, part, acts, index)
    return out


def filled(experts, **options):
    """An ExpertLayer holding `experts`."""
    hidden, intermediate = experts[0].down.packed.shape[0], experts[0].gate.packed.shape[0]
    layer = ExpertLayer(len(experts), hidden, intermediate, **options)
    for e, expert in enumerate(experts):
        layer.set_expert(e, **expert.tensors)
    return layer


def random_batch(rng, tokens, hidden, n_experts, k, skip=True):
    """x, ids (with -1 and duplicates), weights."""
    x = rng.uniform(0.3, 3, (tokens, hidden)) * rng.choice([-1, 1], (tokens, hidden))
    ids = rng.integers(-1 if skip else 0, n_experts, (tokens, k))
    weights = rng.uniform(0.1, 2, (tokens, k))
    return x.astype(np.float32), ids.astype(np.int32), weights.astype(np.float32)
