"""The micro-kernels: what an instruction set does with a few row blocks and a few activation rows.

    rows16(block, blocks, groups, acts, stride, step, index, n, out)

`blocks` row blocks of 16 outputs, `groups` quantisation groups long, one after another in memory
(record.py), times n activation rows: group g of row i lies at acts + index[i] * stride + g * step.
out is float32 [n][blocks * 16], contiguous; nothing else is written.

    emit        LLVM IR of one C function, in Python
    modes       how an encoded activation group lies in memory
    vocabulary  nibbles, integer dot products and the float epilogue in vectors of 8 or 16 lanes
    stream      the frame of direct and exact: one pass over the weights
    direct      up to 4 rows: weights pass once, from memory through registers
    expanded    more rows: weights are expanded into L1, activations stay in registers
    resident    more rows: weights stay in registers, activations are broadcast from memory
    tiles       more rows: AMX
    exact       bf16 activations

All shapes give the same bits: integer dot products are exact, and the float32 operations behind
them are the same in the same order (design §4.1).
"""
