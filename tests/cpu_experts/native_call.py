"""Call the compiled pieces directly: one matrix, given activation rows, any instruction set."""

import ctypes

import numpy as np

from hybrid.cpu_experts.dispatch import compiled_rows16
from hybrid.cpu_experts.layer import ExpertLayer
from hybrid.cpu_experts.record import row_block_bytes
from hybrid.cpu_experts.repack import repack
from tests.reference import experts as reference

MATVEC = {"int8": reference.matvec_int8, "bf16": reference.matvec_bf16}
LAYER = {"int8": reference.layer_int8, "bf16": reference.layer_bf16}
INT8_GROUP = np.dtype([("codes", "i1", 32), ("scale", "f4"), ("offset", "i4")])


def same_bits(a, b):
    """Equal bit for bit; any NaN equals any NaN."""
    both_nan = np.isnan(a) & np.isnan(b)
    return a.shape == b.shape and bool(np.all((a.view(np.uint32) == b.view(np.uint32)) | both_nan))


def encode(mode, x):
    """Activation rows [n, K] as the kernels read them."""
    if mode == "bf16":
        return reference.round_bf16(x)
    rows = np.zeros((len(x), x.shape[1] // 32), INT8_GROUP)
    for row, values in zip(rows, x, strict=True):
        codes, scale = reference.quantise(values)
        row["codes"], row["scale"], row["offset"] = codes, scale, 8 * codes.sum(axis=1)
    return rows


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
    """matrix times the rows of x that `picks` lists -> float32 [len(picks), out]."""
    picks = np.arange(len(x), dtype=np.int32) if picks is None else np.array(picks, np.int32)
    acts, blocks = encode(mode, x), tiles(matrix)
    out = np.full((len(picks), len(matrix.packed)), np.nan, np.float32)
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(compiled_rows16(isa, mode).address)
    for index, block in enumerate(blocks):
        call(
            block.ctypes.data, x.shape[1] // 32, acts.ctypes.data, acts.nbytes // len(x),
            picks.ctypes.data, len(picks), out.ctypes.data + index * 64, out.strides[0],
        )  # fmt: skip
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
