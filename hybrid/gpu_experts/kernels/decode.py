"""Few tokens: one warp computes some output rows of one (token, slot) from its own record.

    gate_up   program (32 intermediate rows, pair): gate and up of them, silu(gate) * up, encoded
    down      program (ROWS output rows, pair): what the expert says

A thread owns whole rows, so that their groups are summed in order without asking another thread.
It reads the 4 bytes of its lane of each line; 16 lanes are 64 contiguous bytes. UNROLL groups of
256 B a row block are asked for before the first is used. That is what keeps memory busy: at K2.5
size 8 experts are 512 warps in gate_up, 3 on each SM of the largest card, with 64 rows * 16 B * 8
groups = 8 KB in flight each; memory of 1.8 TB/s and 0.8 us needs 8.5 KB an SM, one of 3.35 TB/s 20.

Products (decode is bound by memory only if they are few): a word masked with 0x000F000F holds two
nibbles n0, n2 sixteen bits apart, a word of codes holds c2 + 65536 c0 (numerics.py). Modulo 2^32
their product is n0 c2 + 65536 (n0 c0 + n2 c2). Over 16 inputs either sum is below 15 * 128 * 16 =
30,720 < 32,768 in magnitude, so adding 32,768 and shifting by 16 gives the wanted one exactly: two
multiply-adds an integer instruction, without the dot product instruction that Triton cannot say.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN201, ANN202, N803, N806 (Triton compiles these; constants are its capitals)

import triton
import triton.language as tl

from hybrid.gpu_experts.kernels.numerics import silu, store_encoded

GROUP_WORDS = tl.constexpr(72)  # record.STRIDE / 4
NIBBLES = tl.constexpr(0x000F000F)  # of two bytes that lie sixteen bits apart


@triton.jit
def _line(word, codes):
    """Nibbles of 8 inputs, int32 [rows], times their codes at `codes` (int64: two words each)."""
    first, second = tl.load(codes), tl.load(codes + 1)
    total = (word & NIBBLES) * first.to(tl.int32)
    total += ((word >> 8) & NIBBLES) * (first >> 32).to(tl.int32)
    total += ((word >> 4) & NIBBLES) * second.to(tl.int32)
    return total + ((word >> 12) & NIBBLES) * (second >> 32).to(tl.int32)


@triton.jit
def _plane(a, b, c, d, codes):
    """The exact int32 dot product of 32 nibbles, a line an argument, and one plane of codes."""
    low = _line(a, codes) + _line(b, codes + 2)
    high = _line(c, codes + 4) + _line(d, codes + 6)
    return ((low + 32768) >> 16) + ((high + 32768) >> 16)


@triton.jit
def _line_floats(total, word, values):
    """total + x * (nibble - 8) for 8 inputs in ascending order, each operation rounded."""
    for pair in tl.static_range(4):
        both = tl.load(values + pair)  # two float32
        for one in tl.static_range(2):
            index = 2 * pair + one
            shift = index % 4 * 8 + index // 4 * 4
            x = (both >> (32 * one)).to(tl.int32).to(tl.float32, bitcast=True)
            nibble = ((word >> shift) & 15) | 0x4B000000  # 2^23 + nibble as float32
            total = total + x * (nibble.to(tl.float32, bitcast=True) - 8388616.0)
    return total


@triton.jit
def _group(total, a, b, c, d, scale, codes, scales, offsets, at, PLANES: tl.constexpr):
    """total + what one group of 32 inputs says: four lines of words int32 [rows], scale f32."""
    if PLANES == 0:
        values = codes + at * 16
        dot = _line_floats(tl.zeros(a.shape, tl.float32), a, values)
        dot = _line_floats(dot, b, values + 4)
        dot = _line_floats(dot, c, values + 8)
        dot = _line_floats(dot, d, values + 12)
        return total + dot * scale
    dot = _plane(a, b, c, d, codes + at * (8 * PLANES))
    if PLANES == 2:
        dot = dot * 256 + _plane(a, b, c, d, codes + at * 16 + 8)
    dot = dot - tl.load(offsets + at)  # nibbles are 8 too large
    return total + dot.to(tl.float32) * (scale * tl.load(scales + at))


@triton.jit
def _matvec(
    words,  # the record as int32
    halves,  # the record as int16
    block,  # int32 [rows]: the word at which each row's block begins
    lane,  # int32 [rows]: its row in the block
    codes,  # int64: one encoded row
    scales,
    offsets,
    GROUPS: tl.constexpr,
    UNROLL: tl.constexpr,
    PLANES: tl.constexpr,
):
    """f32 [rows]: the dot products of some rows of a matrix with one encoded row."""
    total = tl.zeros(block.shape, tl.float32)
    for start in range(0, GROUPS, UNROLL):
        for step in tl.static_range(UNROLL):
            group = start + step
            word = words + (block + lane + group * GROUP_WORDS)
            a, b = tl.load(word), tl.load(word + 16)
            c, d = tl.load(word + 32), tl.load(word + 48)
            half = tl.load(halves + (block * 2 + lane + (group * 2 * GROUP_WORDS + 128)))
            scale = (half.to(tl.int32) << 16).to(tl.float32, bitcast=True)  # bf16
            total = _group(total, a, b, c, d, scale, codes, scales, offsets, group, PLANES)
    return total


@triton.jit
def gate_up(
    words,  # int32 [count, RECORD_WORDS]
    halves,  # int16, the same
    slot_ids,  # int32 [pairs]
    order,  # int64 [pairs]: the pair that a program takes, where SORTED
    codes,
    scales,
    offsets,
    h_codes,
    h_scales,
    h_offsets,
    k,
    HIDDEN: tl.constexpr,
    INTERMEDIATE: tl.constexpr,
    UNROLL: tl.constexpr,
    PLANES: tl.constexpr,
    SORTED: tl.constexpr,
):
    """h of 32 intermediate rows of one pair, encoded as words or floats."""
    GROUPS: tl.constexpr = HIDDEN // 32
    BLOCK: tl.constexpr = GROUPS * GROUP_WORDS
    RECORD: tl.constexpr = (2 * INTERMEDIATE * HIDDEN + HIDDEN * INTERMEDIATE) // 512 * GROUP_WORDS
    WORDS: tl.constexpr = 16 * PLANES if PLANES else 32  # of an encoded group
    pair = tl.load(order + tl.program_id(1)) if SORTED else tl.program_id(1).to(tl.int64)
    slot = tl.load(slot_ids + pair).to(tl.int64)
    if slot >= 0:
        row = tl.arange(0, 64)  # gate 0...31, up 0...31; blocks alternate, gate, up, gate, up
        block = (tl.program_id(0) * 4 + row % 32 // 16 * 2 + row // 32) * BLOCK
        token = pair // k
        at = token * GROUPS
        total = _matvec(
            words + slot * RECORD,
            halves + slot * (2 * RECORD),
            block,
            row % 16,
            codes + at * (WORDS // 2),
            scales + at,
            offsets + at,
            GROUPS,
            UNROLL,
            PLANES,
        )
        gate, up = tl.split(tl.trans(tl.reshape(total, (2, 32))))
        h = tl.reshape(silu(gate) * up, (1, 32))
        rows = tl.zeros((1,), tl.int64) + pair
        group = tl.zeros((1,), tl.int32) + tl.program_id(0)
        store_encoded(
            h_codes,
            h_scales,
            h_offsets,
            h,
            rows,
            group,
            group >= 0,
            INTERMEDIATE // 32,
            PLANES,
            True,
        )


@triton.jit
def down(
    words,
    halves,
    slot_ids,
    order,
    codes,
    scales,
    offsets,
    outputs,  # f32 [pairs, HIDDEN]
    HIDDEN: tl.constexpr,
    INTERMEDIATE: tl.constexpr,
    ROWS: tl.constexpr,
    UNROLL: tl.constexpr,
    PLANES: tl.constexpr,
    SORTED: tl.constexpr,
):
    """ROWS outputs of one pair from its h."""
    GROUPS: tl.constexpr = INTERMEDIATE // 32
    BLOCK: tl.constexpr = GROUPS * GROUP_WORDS
    FIRST: tl.constexpr = 2 * INTERMEDIATE * HIDDEN // 512 * GROUP_WORDS
    RECORD: tl.constexpr = FIRST + HIDDEN * INTERMEDIATE // 512 * GROUP_WORDS
    WORDS: tl.constexpr = 16 * PLANES if PLANES else 32
    pair = tl.load(order + tl.program_id(1)) if SORTED else tl.program_id(1).to(tl.int64)
    slot = tl.load(slot_ids + pair).to(tl.int64)
    if slot >= 0:
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        at = pair * GROUPS
        total = _matvec(
            words + (slot * RECORD + FIRST),
            halves + (slot * RECORD + FIRST) * 2,
            row // 16 * BLOCK,
            row % 16,
            codes + at * (WORDS // 2),
            scales + at,
            offsets + at,
            GROUPS,
            UNROLL,
            PLANES,
        )
        tl.store(outputs + pair * HIDDEN + row, total)
