"""The format of the record file: its bytes, and that no bytes in it are believed unchecked."""

import os
import struct
import tracemalloc

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.cache import record_file
from hybrid.cache.record_file import Contents, RecordFile, checksum, head_pages
from hybrid.cache.shard_source import repack_expert, tensor_sizes
from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import CheckpointError
from tests.cache.record_cases import PAGE, SMALL, small_records, true_file

K25 = Contents(RecordShape(7168, 2048), 1, 60, 384, bytes(16))
FIELDS = {  # name: (offset, format)
    "magic": (0, "8s"), "version": (8, "I"), "hidden": (12, "I"), "intermediate": (16, "I"),
    "first_layer": (20, "I"), "layers": (24, "I"), "experts": (28, "I"), "nbytes": (48, "Q"),
    "stride": (56, "Q"), "data_offset": (64, "Q"), "file": (72, "Q"), "fingerprint": (80, "16s"),
    "layout": (96, "Q"), "checksum": (104, "Q"),
}  # fmt: skip


@pytest.fixture(scope="module")
def small_file():
    return true_file(SMALL, small_records())


@pytest.fixture
def file(tmp_path, small_file):
    path = tmp_path / "x.records"
    path.write_bytes(small_file)
    return path


def set_field(path, name, value):
    offset, kind = FIELDS[name]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack("<" + kind, value))


def seal(path, table_bytes):
    """Give a head, whatever it says, the checksum that belongs to it."""
    set_field(path, "checksum", 0)
    data = path.read_bytes()
    own = xxhash.xxh3_64_intdigest(data[:112] + data[PAGE : PAGE + table_bytes])
    set_field(path, "checksum", own)


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        RecordFile.open(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_file_of_k2_5():
    assert K25.stride == K25.shape.nbytes == 24_772_608
    assert K25.data_offset == 4096 + 45 * 4096  # 23,040 checksums are 184,320 bytes
    assert K25.nbytes == 188_416 + 23_040 * 24_772_608
    assert K25.place(K25.index(60, 383)) == (60, 383)
    assert K25.offset(K25.index(2, 1)) == 188_416 + 385 * 24_772_608


@pytest.mark.parametrize(("layer", "expert"), [(0, 0), (4, 0), (1, 5), (1, -1), (-1, 0)])
def test_a_record_that_is_not_there_is_refused(layer, expert):
    with pytest.raises(CheckpointError, match=r"layers 1 \.\.\. 3 have 5 each"):
        SMALL.index(layer, expert)


def test_head_and_table_are_the_picture(small_file):
    sums = np.array([checksum(record) for record in small_records()], np.uint64)
    assert head_pages(SMALL, sums).tobytes() == small_file[: SMALL.data_offset]
    assert len(small_file) == SMALL.nbytes


def test_what_was_written_is_read(file):
    records = RecordFile.open(file)
    assert records.contents == SMALL
    want = [xxhash.xxh3_64_intdigest(record.tobytes()) for record in small_records()]
    assert records.checksums.tolist() == want


def test_the_layout_of_a_record_is_the_one_that_files_claim():
    """Of a fixed small expert; a changed layout needs a new LAYOUT, or old files would be read."""
    shape = RecordShape(64, 32)
    parts = [
        (np.arange(size, dtype=np.uint32) * 2654435761 >> 13).astype(np.uint8) + np.uint8(17 * i)
        for i, size in enumerate(tensor_sizes(shape))
    ]
    record = np.zeros(shape.nbytes, np.uint8)
    repack_expert(shape, parts, record)
    assert checksum(record) == record_file.LAYOUT
    repack_expert(shape, [*parts[2:4], *parts[:2], *parts[4:]], record)  # up before gate
    assert checksum(record) != record_file.LAYOUT


def test_each_bit_of_head_and_table_counts(file, small_file):
    """Zeros behind the fields mean nothing; every other bit is a refusal."""
    silent = {*range(32, 48), *range(112, PAGE), *range(PAGE + 8 * SMALL.records, 2 * PAGE)}
    rng = np.random.default_rng(1)
    for at in [*range(112), *range(PAGE, PAGE + 8 * SMALL.records), 200, 2 * PAGE - 1]:
        with file.open("r+b") as opened:
            opened.seek(at)
            opened.write(bytes([small_file[at] ^ 1 << int(rng.integers(8))]))
        if at in silent:
            assert RecordFile.open(file).contents == SMALL
        else:
            refusal(file)
        with file.open("r+b") as opened:
            opened.seek(at)
            opened.write(small_file[at : at + 1])
    RecordFile.open(file)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("magic", b"KLPARTIA", "is not a record file"),
        ("version", 2, "another version of kimi-local (format 2"),
        ("layout", 0xABC, "another version of kimi-local (format 1, layout 0000000000000abc"),
        ("hidden", 48, "impossible numbers"),
        ("hidden", 1 << 31, "impossible numbers"),
        ("intermediate", 0, "impossible numbers"),
        ("first_layer", 1 << 31, "impossible numbers"),
        ("layers", 0, "impossible numbers"),
        ("experts", 0xFFFFFFFF, "impossible numbers"),
        ("nbytes", 1, "impossible numbers"),
        ("stride", 2 * PAGE, "impossible numbers"),
        ("data_offset", 0, "impossible numbers"),
        ("file", (1 << 64) - 1, "impossible numbers"),
        ("fingerprint", bytes(16), "head or table is damaged"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(file, name, value, said):
    set_field(file, name, value)
    if name != "fingerprint":  # the only one that no other number contradicts
        seal(file, 8 * SMALL.records)
    assert said in refusal(file)


def test_a_fitting_head_for_more_than_the_file_has_reads_nothing(file):
    """Every number agrees with the others; only the file is short. 8 MB of table stay unread."""
    huge = Contents(SMALL.shape, 1, 1024, 1024, bytes(16))
    with file.open("r+b") as opened:
        opened.write(record_file.pack_head(huge, record_file.MAGIC, 0))
    tracemalloc.start()
    try:
        assert f"its head speaks of {huge.nbytes}" in refusal(file)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_the_largest_table_is_bounded(file):
    """A sparse file may claim a million experts: 8 MB are read, then its checksum is wrong."""
    huge = Contents(SMALL.shape, 1, 1024, 1024, bytes(16))
    with file.open("r+b") as opened:
        opened.write(record_file.pack_head(huge, record_file.MAGIC, 0))
        opened.truncate(huge.nbytes)
    tracemalloc.start()
    try:
        assert "damaged" in refusal(file)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_more_records_than_there_may_be_are_refused(file):
    """Consistent and, as a sparse file, large enough: 16 million records, a table of 128 MB."""
    huge = Contents(SMALL.shape, 1, record_file.MAX_LAYERS, 4096, bytes(16))
    with file.open("r+b") as opened:
        opened.write(record_file.pack_head(huge, record_file.MAGIC, 0))
        opened.truncate(huge.nbytes)
    assert "impossible numbers" in refusal(file)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_no_head_crashes_the_reader(tmp_path_factory, small_file, data):
    """Fields with any value, sealed or not, in a file of any length: read right, or one line."""
    path = tmp_path_factory.getbasetemp() / "hostile.records"
    path.write_bytes(small_file)
    for name in data.draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3)):
        _, kind = FIELDS[name]
        bits = 32 if kind == "I" else 64
        near = st.integers(0, 70) | st.integers(0, (1 << bits) - 1)
        length = int(kind[:-1]) if kind[-1] == "s" else 0
        set_field(path, name, data.draw(st.binary(max_size=length) if length else near))
    if data.draw(st.booleans()):
        seal(path, 8 * SMALL.records)
    if data.draw(st.booleans()):
        os.truncate(path, data.draw(st.integers(0, 2 * len(small_file))))
    refused = None
    try:
        opened = RecordFile.open(path)
    except CheckpointError as error:
        refused = str(error)
    if refused is None:
        assert opened.contents.nbytes == path.stat().st_size
        assert len(opened.checksums) == opened.contents.records
    else:
        assert "\n" not in refused
        assert len(refused) < 500


@pytest.mark.parametrize("length", [0, 1, 111, PAGE - 1, PAGE, 2 * PAGE, -1, +1])
def test_a_file_of_another_length_is_refused(file, small_file, length):
    os.truncate(file, length if length > 1 or length == 0 else len(small_file) + length)
    assert str(file) in refusal(file)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refusal(tmp_path / "fifo")
    assert "not a regular file" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "absent")


def test_another_model_is_told_from_other_weights(file):
    records = RecordFile.open(file)
    record_file.require_match(file, records.contents, SMALL)
    other = Contents(SMALL.shape, 1, 3, 6, SMALL.fingerprint)
    with pytest.raises(CheckpointError, match=r"holds 5 experts 64 x 32 .*the model has 6 experts"):
        record_file.require_match(file, records.contents, other)
    other = Contents(SMALL.shape, 1, 3, 5, bytes(16))
    with pytest.raises(CheckpointError, match="other weights of the same sizes"):
        record_file.require_match(file, records.contents, other)
