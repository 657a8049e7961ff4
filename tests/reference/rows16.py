"""`rows16` in slow, obvious numpy: row blocks times activation rows, each float32 operation alone.

    blocks   [blocks, groups] groups of 288 B: 256 B of nibbles (design §3), then 16 scales as bf16
    acts     [n, groups] activation groups of one of the three types below
    result   float32 [n, blocks * 16]

For group g ascending (design §4.1), all products and sums rounded to float32:

    int8, int16   acc = acc + float(dot) * (w_scale * x_scale)                 dot exact
    bf16          acc = acc + (((0 + x0 * w0) + x1 * w1) + ...) * w_scale      in order
"""

import numpy as np

F32 = np.float32
ROWS, GROUP, GROUP_BYTES = 16, 32, 288
GROUPS = {  # `offset` is 8 * the sum of the activation's codes: nothing here reads it
    "int8": np.dtype([("codes", "i1", GROUP), ("scale", "f4"), ("offset", "i4")]),
    "int16": np.dtype(
        [("hi", "i1", GROUP), ("lo", "i1", GROUP), ("scale", "f4"), ("offset", "i4")]
    ),
    "bf16": np.dtype([("x", "f4", GROUP)]),
}


def rows16(mode, blocks, acts):
    """blocks uint8 [blocks, groups, 288], acts GROUPS[mode] [n, groups] -> float32 [n, outputs]."""
    weights, scales = unpacked(blocks)
    acc = np.zeros((len(acts), len(blocks) * ROWS), F32)
    with np.errstate(all="ignore"):
        for w, w_scale, group in zip(weights, scales, acts.T, strict=True):
            if mode == "bf16":
                acc = acc + ascending(w, group["x"]) * w_scale
            else:
                dot = (codes(mode, group) @ w.T.astype(np.float64)).astype(F32)  # < 2^24: exact
                acc = acc + dot * (w_scale * group["scale"][:, None])
    return acc


def codes(mode, group):
    """The integers that stand for the activations, int64 [n, 32]."""
    if mode == "int8":
        return group["codes"].astype(np.int64)
    return 256 * group["hi"].astype(np.int64) + group["lo"].astype(np.int64)


def ascending(w, x):
    """The sum over inputs in ascending order, w int64 [outputs, 32], x float32 [n, 32]."""
    total = np.zeros((len(x), len(w)), F32)
    for i in range(GROUP):
        total = total + x[:, i, None] * w[:, i].astype(F32)
    return total


def unpacked(blocks):
    """Weights int64 [groups, outputs, 32] in -8...7, scales float32 [groups, outputs]."""
    count, groups, _ = blocks.shape
    nibbles = np.zeros((groups, count, ROWS, GROUP), np.int64)
    for line in range(4):
        for row in range(ROWS):
            for byte in range(4):
                packed = blocks[:, :, line * 64 + row * 4 + byte].T.astype(np.int64)
                nibbles[:, :, row, line * 8 + byte] = packed & 15
                nibbles[:, :, row, line * 8 + 4 + byte] = packed >> 4
    bits = np.ascontiguousarray(blocks[:, :, 256:]).view(np.uint16).astype(np.uint32)
    scales = (bits << 16).view(F32).transpose(1, 0, 2)
    return nibbles.reshape(groups, -1, GROUP) - 8, scales.reshape(groups, -1)
