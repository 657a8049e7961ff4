"""The record's arithmetic and the repack, against an inverse that moves one nibble at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import ConfigError
from tests.cpu_experts.native_call import filled
from tests.reference import experts as reference

multiples = st.integers(1, 5).map(lambda n: 32 * n)


def equal(a, b):
    return np.array_equal(a.packed, b.packed) and np.array_equal(a.scale, b.scale)


def test_the_record_of_k2_5():
    shape = RecordShape(7168, 2048)
    assert shape.gate_block_bytes == 64_512
    assert shape.down_block_bytes == 18_432
    assert shape.nbytes == 24_772_608 == 6048 * 4096


@given(multiples, multiples)
def test_nothing_is_padded(hidden, intermediate):
    """Exactly 4 bits a weight and 16 bits a group of 32."""
    weights = 3 * hidden * intermediate
    assert RecordShape(hidden, intermediate).nbytes == weights // 2 + weights // 16


@given(multiples, multiples, st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_repack_loses_nothing(hidden, intermediate, seed):
    expert = reference.random_expert(np.random.default_rng(seed), hidden, intermediate)
    layer = filled([expert], threads=1)
    back = reference.unpack_record(layer.records[0], hidden, intermediate)
    assert equal(back.gate, expert.gate)
    assert equal(back.up, expert.up)
    assert equal(back.down, expert.down)
    assert not equal(back.gate, back.up)  # so that one for the other would be seen


def test_a_nibble_where_the_picture_says():
    """Row 5, input 45 of gate: group 1, line 1, lane 5, byte 1, high nibble."""
    zero = reference.Matrix(np.zeros((32, 8), np.int32), np.zeros((32, 2), np.uint16))
    packed = zero.packed.copy()
    packed[5, 45 // 8] = 0xA << 4 * (45 % 8)
    down = reference.Matrix(np.zeros((64, 4), np.int32), np.zeros((64, 1), np.uint16))
    gate = reference.Matrix(packed, zero.scale)
    record = filled([reference.Expert(gate, zero, down)], threads=1).records[0]
    assert np.flatnonzero(record).tolist() == [288 + 64 + 5 * 4 + 1]
    assert record[288 + 64 + 5 * 4 + 1] == 0xA0


def test_a_scale_where_the_picture_says():
    """Row 5, group 1 of up: behind the nibbles of that group, in the second row block."""
    zero = reference.Matrix(np.zeros((32, 8), np.int32), np.zeros((32, 2), np.uint16))
    scale = zero.scale.copy()
    scale[5, 1] = 0x1234
    down = reference.Matrix(np.zeros((64, 4), np.int32), np.zeros((64, 1), np.uint16))
    up = reference.Matrix(zero.packed, scale)
    record = filled([reference.Expert(zero, up, down)], threads=1).records[0]
    at = 2 * 288 + 288 + 256 + 5 * 2
    assert np.flatnonzero(record).tolist() == [at, at + 1]
    assert record[at : at + 2].tolist() == [0x34, 0x12]


def test_the_published_word():
    """Spec §2.4: these eight codes are the word 0x73B305FC."""
    word = np.array([[0x73B305FC, 0, 0, 0]], np.uint32).view(np.int32)
    matrix = reference.Matrix(word, np.array([[0x3F80]], np.uint16))
    assert matrix.codes[0, :8].tolist() == [4, 7, -3, -8, -5, 3, -5, -1]


@pytest.mark.oracle
def test_unpack_agrees_with_compressed_tensors():
    torch = pytest.importorskip("torch")
    pack = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    matrix = reference.random_matrix(np.random.default_rng(3), 48, 160)
    theirs = pack.unpack_from_int32(torch.from_numpy(matrix.packed), 4, torch.Size((48, 160)))
    assert np.array_equal(theirs.numpy(), matrix.codes)
    other = (matrix.packed.view(np.uint32) ^ np.uint32(0x88888888)).view(np.int32)
    wrong = pack.unpack_from_int32(torch.from_numpy(other), 4, torch.Size((48, 160)))
    assert not np.array_equal(wrong.numpy(), matrix.codes)


@pytest.mark.parametrize(
    ("hidden", "intermediate", "name"),
    [(48, 64, "hidden"), (64, 33, "intermediate"), (0, 32, "hidden"), (64, -32, "intermediate")],
)
def test_a_dimension_that_does_not_fit_is_named(hidden, intermediate, name):
    with pytest.raises(ConfigError, match=f"^{name} is -?[0-9]+;"):
        ExpertLayer(1, hidden, intermediate)


@pytest.mark.parametrize("part", ["gate", "up", "down"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed, scale: (packed[:, :-1], scale),
        lambda packed, scale: (packed, scale[:-1]),
        lambda packed, scale: (packed.astype(np.int64), scale),
        lambda packed, scale: (packed, scale.view(np.int16)),
        lambda packed, scale: (packed.T, scale),
        lambda packed, scale: (packed[0], scale),
    ],
    ids=["narrow", "short", "int64", "int16 scale", "transposed", "vector"],
)
def test_a_tensor_that_does_not_fit_is_named(part, spoil):
    expert = reference.random_expert(np.random.default_rng(0), 96, 64)
    layer = ExpertLayer(1, 96, 64, threads=1)
    tensors = expert.tensors
    tensors[part] = spoil(*tensors[part])
    with pytest.raises(ConfigError, match=f"^{part} (packed|scale) is "):
        layer.set_expert(0, **tensors)


def test_strided_tensors_are_accepted():
    rng = np.random.default_rng(1)
    expert = reference.random_expert(rng, 64, 32)
    straight = filled([expert], threads=1)
    strided = ExpertLayer(1, 64, 32, threads=1)
    spread = {
        k: (np.repeat(p, 2, 1)[:, ::2], s[::-1][::-1]) for k, (p, s) in expert.tensors.items()
    }
    strided.set_expert(0, **spread)
    assert np.array_equal(strided.records, straight.records)


def test_records_may_live_in_the_callers_arena():
    expert = reference.random_expert(np.random.default_rng(2), 64, 32)
    arena = np.zeros((2, 3, RecordShape(64, 32).nbytes), np.uint8)
    layer = ExpertLayer(3, 64, 32, threads=1, records=arena[1])
    layer.set_expert(2, **expert.tensors)
    assert arena[1, 2].any()
    assert not arena[0].any()
    assert not arena[1, :2].any()


@pytest.mark.parametrize(
    "records",
    [
        np.zeros((3, 100), np.uint8),
        np.zeros((3, 3456), np.int8),
        np.zeros((3, 6912), np.uint8)[:, ::2],
    ],
    ids=["short", "int8", "strided"],
)
def test_an_arena_that_does_not_fit_is_refused(records):
    with pytest.raises(ConfigError, match="records"):
        ExpertLayer(3, 64, 32, records=records)
