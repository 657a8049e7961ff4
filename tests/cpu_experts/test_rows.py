"""`rows16`, the micro-kernel: every instruction set of this host against numpy, bit for bit.

Faults are planted into the kernels themselves: a vocabulary with one word wrong, compiled and
linked like the right one.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import llvmlite.binding as llvm
import numpy as np
import pytest

from hybrid.cpu_experts import available_isas, dispatch, machine_code
from hybrid.cpu_experts.isas import ISAS
from hybrid.cpu_experts.rows import direct, exact
from hybrid.cpu_experts.rows.emit import I32
from hybrid.cpu_experts.rows.modes import MODES
from tests.cpu_experts.native_call import biased, call_rows16, rows16, same_bits
from tests.cpu_experts.rows_cases import (
    PLANES,
    agrees,
    flat,
    random_acts,
    random_blocks,
    random_case,
    with_sums,
)
from tests.reference import rows16 as reference
from tests.reference.rows16 import F32

HERE, NATIVE = available_isas(), available_isas()[1:]
INTEGERS = ("int8", "int16")


def sizes(mode) -> Iterator[tuple[int, int, int]]:
    """(blocks, groups, n): every n with ragged others, then short and long rows."""
    for n in range(1, 65):
        yield 1 + n % 6, 1 + 7 * n % 11, n
    for groups in (*range(1, 225, 9 if mode in INTEGERS else 37), 64, 223):
        yield 1 + groups % 2, groups, 1 + groups % 7
    for n in (1, 4, 5, 64):
        yield 4, 224, n
    for blocks in range(1, 7):
        for n in (1, 2, 3, 4, 5, 6):
            yield blocks, 3, n


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("isa", HERE)
def test_numpy_gives_the_same_bits(isa, mode):
    kernel = partial(rows16, isa, mode)
    wrong = [size for size in sizes(mode) if not agrees(kernel, mode, *size)]
    assert not wrong


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("isa", HERE)
def test_a_row_alone_has_the_bits_it_has_in_any_company(isa, mode):
    rng = np.random.default_rng(3)
    blocks = random_blocks(rng, 5, 7).reshape(5, -1)
    acts = random_acts(rng, mode, 64, 7)
    together = rows16(isa, mode, blocks, acts)
    for n in (1, 2, 3, 4, 5, 63):
        for first in range(0, 64 - n, 9):
            index = np.arange(first, first + n)
            assert same_bits(rows16(isa, mode, blocks, acts, index), together[index])
    for number, block in enumerate(blocks):  # and a block alone, the ones it has among others
        columns = together[:, 16 * number : 16 * number + 16]
        assert same_bits(rows16(isa, mode, block[None], acts), np.ascontiguousarray(columns))


@pytest.mark.parametrize("n", [1, 4, 21, 64])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("isa", HERE)
def test_groups_may_lie_apart(isa, mode, n):
    blocks, acts, index = random_case(mode, 5, 4, n)
    panel = np.ascontiguousarray(acts.T).T  # [rows, groups], group by group in memory
    assert panel.strides != acts.strides
    want = rows16(isa, mode, flat(blocks), acts, index)
    assert same_bits(rows16(isa, mode, flat(blocks), panel, index), want)


@pytest.mark.parametrize("n", [3, 20])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("isa", HERE)
def test_what_it_reads_is_left_alone(isa, mode, n):
    blocks, acts, index = random_case(mode, 5, 4, n)
    before = blocks.copy(), acts.copy(), index.copy()
    rows16(isa, mode, flat(blocks), acts, index)
    for array, copy in zip((blocks, acts, index), before, strict=True):
        assert array.tobytes() == copy.tobytes()


@pytest.mark.parametrize(("at", "text"), [(-4, "before"), (3 * 32 * 4, "after")])
def test_writing_beside_the_results_is_seen(at, text):
    def beside(*arguments):
        ctypes.c_float.from_address(arguments[-1] + at).value = 1

    wrong = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 9)(beside)
    blocks, acts, index = random_case("int8", 2, 3, 3)
    with pytest.raises(AssertionError, match=f"written {text} out"):
        call_rows16(ctypes.cast(wrong, ctypes.c_void_p).value, flat(blocks), acts, index)


# ---- extremes


def largest(sign):
    def change(mode, blocks, acts):
        for plane in PLANES[mode]:
            acts[plane] = sign * 127
        if mode == "bf16":
            acts["x"] = sign * F32(3e30)

    return change


def lowest_low_plane(mode, blocks, acts):
    """The low plane reaches -128, the high one 127 and -127."""
    for plane in PLANES[mode]:
        acts[plane] = -128 if plane == "lo" else 127
        acts[plane][:, ::2] = -128 if plane == "lo" else -127


def alternating(mode, blocks, acts):
    for plane in PLANES[mode]:
        acts[plane][..., ::2], acts[plane][..., 1::2] = 127, -127


def nibbles(byte, codes):
    def change(mode, blocks, acts):
        blocks[..., :256] = byte
        codes(mode, blocks, acts)

    return change


def weight_scale(bits):
    """In the last group, in every third row."""

    def change(mode, blocks, acts):
        scales = blocks[:, -1, 256:].copy().view(np.uint16)
        scales[:, ::3] = bits
        blocks[:, -1, 256:] = scales.view(np.uint8)

    return change


def activation_scale(value):
    """Of one row's last group; as the encoder does, codes are 0 where there is no scale."""

    def change(mode, blocks, acts):
        row = min(1, len(acts) - 1)
        if mode == "bf16":
            acts["x"][row, -1, 7] = value
        else:
            acts["scale"][row, -1] = value
            for plane in PLANES[mode] if not np.isfinite(value) else ():
                acts[plane][row, -1] = 0

    return change


EXTREMES = {
    **{f"nibbles {byte:#x}, codes {sign * 127}": nibbles(byte, largest(sign))
       for byte in (0x00, 0xFF) for sign in (1, -1)},
    "nibbles 0 and 15": nibbles(0xF0, alternating),
    "nibbles 15 and 0": nibbles(0x0F, alternating),
    "low plane -128, nibbles 0": nibbles(0x00, lowest_low_plane),
    "low plane -128, nibbles 15": nibbles(0xFF, lowest_low_plane),
    **{f"weight scale {bits:#x}": weight_scale(bits)
       for bits in (0x0000, 0x8000, 0x0001, 0x807F, 0x0080, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0)},
    **{f"activation scale {value}": activation_scale(F32(value))
       for value in (0, 1e-45, 1e-39, 3e38, np.inf, -np.inf, np.nan)},
}  # fmt: skip


def extreme_case(name, mode, n):
    rng = np.random.default_rng(4)
    blocks, acts = random_blocks(rng, 5, 3), random_acts(rng, mode, n, 3)
    EXTREMES[name](mode, blocks, acts)
    return blocks, acts if mode == "bf16" else with_sums(mode, acts)


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:overflow|invalid:RuntimeWarning")
def test_extremes(mode, name):
    for n in (1, 2, 4, 5, 19):
        blocks, acts = extreme_case(name, mode, n)
        want = reference.rows16(mode, blocks, acts)
        for isa in HERE:
            assert same_bits(rows16(isa, mode, flat(blocks), acts), want), (isa, n)


@pytest.mark.parametrize("mode", INTEGERS)
def test_a_token_without_scale_spoils_its_own_results_only(mode):
    blocks, acts = extreme_case("activation scale nan", mode, 9)
    for isa in HERE:
        got = rows16(isa, mode, flat(blocks), acts)
        assert np.isnan(got[1]).all()
        assert np.isfinite(np.delete(got, 1, axis=0)).all()


# ---- faults in the kernel


def linked(data):
    """(address of rows16, what keeps it alive) of an object."""
    engine = machine_code._engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    return engine.get_function_address(machine_code.SYMBOL), engine


def faulty_words(isa, **words):
    """The instruction set with other methods in its vocabulary: name=method(simd, right, ...)."""

    def simd(code):
        made = isa.simd(code)
        for name, word in words.items():
            setattr(made, name, partial(word, made, getattr(made, name)))
        return made

    return replace(isa, simd=simd)


def three_bits(simd, right, tile, part, line):
    b, low = simd.code.b, right(tile, part, line)[0]
    packed = simd.code.load(tile, line * 64 + part * simd.nbytes, simd.ints)
    moved = b.lshr(packed, simd.code.constant(simd.ints, 3))
    mask = simd.code.constant(simd.ints, 0x0F0F0F0F)
    return low, b.bitcast(b.and_(moved, mask), simd.bytes)


def halves_swapped(simd, right, tile, part, line):
    return right(tile, part, line)[::-1]


def lines_swapped(simd, right, tile, part, line):
    return right(tile, part, line ^ 1)


def two_scales_swapped(simd, right, tile, part):
    scale = right(tile, part)
    order = [1, 0, *range(2, simd.lanes)]
    mask = simd.code.constant(simd.ints, 0).type(order)
    return simd.code.b.shuffle_vector(scale, scale, mask)


def planes_swapped(simd, right, x, offset):
    return right(x, offset ^ 32)


def fused(simd, right, total, dot, scale):
    value = simd.code.b.sitofp(dot, simd.floats)
    name = f"llvm.fma.v{simd.lanes}f32"
    return simd.code.call(name, simd.floats, value, scale, total)


def no_bias(simd, right, weights):
    return simd.code.constant(simd.bias_kind, 0)


def high_plane_halved(simd, right, total, factor):
    return right(total, max(1, factor // 2))


def offset_ignored(simd, right, x, offset, kind):
    value = right(x, offset, kind)
    return simd.code.constant(simd.ints, 0) if kind is I32 and offset in (36, 68) else value


def last_step_dropped(simd, right, total, unsigned, signed):
    return right(total, list(unsigned)[:-1], list(signed)[:-1])


FAULTS = {  # name -> mode, numbers of rows at which it shows, the wrong words
    "nibbles shifted by three": ("int8", (1, 5), {"nibbles": three_bits}),
    "halves swapped": ("int8", (1, 5), {"nibbles": halves_swapped}),
    "lines swapped": ("int8", (1, 5), {"nibbles": lines_swapped}),
    "two scales swapped": ("int8", (1, 5), {"scale": two_scales_swapped}),
    "two scales swapped, bf16": ("bf16", (1, 5), {"scale": two_scales_swapped}),
    "fused": ("int8", (1, 5), {"scaled": fused}),
    "the nibbles' offset ignored": ("int8", (1,), {"every": offset_ignored}),
    "no bias": ("int8", (5,), {"bias": no_bias}),
    "the last four inputs dropped": ("int8", (5,), {"sum_products": last_step_dropped}),
    "planes swapped": ("int16", (1, 5), {"codes": planes_swapped}),
    "high plane halved": ("int16", (1, 5), {"widened": high_plane_halved}),
}
SEEN_HERE = NATIVE[:1]  # a wider instruction set's own faults are seen by tests/emulation


def kernel_at(address, isa, mode):
    """kernel(blocks, acts, index) of a linked object, codes biased where the ISA wants that."""

    def kernel(blocks, acts, index):
        if len(index) >= dispatch.panels_from(mode) and dispatch.biased(isa, mode):
            acts = biased(mode, acts)
        return call_rows16(address, blocks, acts, index)

    return kernel


def compiled(isa, mode, words):
    """kernel(blocks, acts, index) with these wrong words, and what keeps it alive."""
    address, engine = linked(machine_code._compile(faulty_words(ISAS[isa], **words), mode))
    return kernel_at(address, isa, mode), engine


@pytest.mark.parametrize("isa", SEEN_HERE)
@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_word_is_seen(isa, name):
    mode, rows, words = FAULTS[name]
    kernel, _engine = compiled(isa, mode, words)
    assert [n for n in rows if agrees(kernel, mode, 5, 7, n)] == []


@pytest.mark.parametrize("isa", SEEN_HERE)
@pytest.mark.parametrize("mode", MODES)
def test_the_right_words_pass(isa, mode):
    """Built in the same way as the faulty ones, but for the fault."""
    kernel, _engine = compiled(isa, mode, {})
    assert all(agrees(kernel, mode, 5, 7, n) for n in (1, 5))


@pytest.mark.parametrize("isa", SEEN_HERE)
def test_a_wrong_weight_in_bf16_is_seen(isa, monkeypatch):
    right = exact._weight
    monkeypatch.setattr(exact, "_weight", lambda *args: right(*args[:-1], min(args[-1], 6)))
    kernel, _engine = compiled(isa, "bf16", {})
    assert not any(agrees(kernel, "bf16", 5, 7, n) for n in (1, 5))


@pytest.mark.parametrize("isa", SEEN_HERE)
def test_signed_codes_for_a_shape_that_wants_them_biased_are_seen(isa, monkeypatch):
    """From `direct.MAX_ROWS` + 1 rows on: the kernel and its caller must mean the same rows."""
    monkeypatch.setattr(direct, "MAX_ROWS", 3)
    address, _engine = linked(machine_code._compile(ISAS[isa], "int8"))
    monkeypatch.undo()
    kernel = kernel_at(address, isa, "int8")
    assert [n for n in (3, 4, 5) if not agrees(kernel, "int8", 5, 7, n)] == [4]
