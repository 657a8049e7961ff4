"""Both sources give the true records; whatever happens to their files is an error, never bytes."""

import errno
import logging
import os
import shutil
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.cache import direct_io, shard_source
from hybrid.cache.file_source import FileSource
from hybrid.cache.shard_source import GAP, plan, repack_expert, staging_bytes, tensor_sizes
from hybrid.cache.source import RecordSource
from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import CheckpointError
from hybrid.tiny import TinyShape, write_tiny
from tests.cache import record_cases as cases
from tests.cache.record_cases import PAGE, SMALL, places, slot
from tests.checkpoint_files import all_tensors, rewrite, shards
from tests.conftest import SHAPES
from tests.reference import experts as reference

SHAPE = TinyShape(  # records of 7 pages, the last one not full
    hidden_size=160,
    moe_intermediate_size=96,
    num_hidden_layers=3,
    n_routed_experts=6,
    num_experts_per_tok=2,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint that tests may harm after copying it."""
    return write_tiny(tmp_path_factory.mktemp("sources") / "model", SHAPE, seed=3, vision=False)


@pytest.fixture
def own_model(model, tmp_path):
    return shutil.copytree(model, tmp_path / "own")


@pytest.fixture(scope="module")
def truth(model):
    return cases.true_records(model)


@pytest.fixture(scope="module")
def contents(model):
    return cases.contents(model)


@pytest.fixture
def file(tmp_path, contents, truth):
    path = tmp_path / "x.records"
    path.write_bytes(cases.true_file(contents, truth))
    return path


@pytest.fixture(params=["records", "shards"])
def source(request, file, own_model):
    """Both kinds, over files that a test may harm: `source.files`."""
    kind = FileSource(file) if request.param == "records" else cases.shard_source(own_model)
    with closing(kind):
        yield kind


def files_of(source, tmp_path):
    return [tmp_path / "x.records"] if source.kind == "records" else shards(tmp_path / "own")


def all_records(source, contents):
    memory = slot(contents)
    return np.array(
        [
            source.read(layer, expert, memory) and memory[: contents.shape.nbytes].copy()
            for layer, expert in places(contents)
        ]
    )


@pytest.fixture
def buffered(monkeypatch):
    """A file system that knows no O_DIRECT."""

    def refuse(fd, command, argument=0):
        if command == direct_io.fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, command, argument)

    real = direct_io.fcntl.fcntl
    monkeypatch.setattr(direct_io.fcntl, "fcntl", refuse)


@pytest.mark.parametrize("name", SHAPES)
def test_both_give_the_records_of_the_checkpoint(name, checkpoint_dir, tmp_path):
    directory = checkpoint_dir(name)
    contents, truth = cases.contents(directory), cases.true_records(directory)
    (tmp_path / "x").write_bytes(cases.true_file(contents, truth))
    for source in (FileSource(tmp_path / "x", contents), cases.shard_source(directory)):
        checked: RecordSource = source
        with closing(checked):
            assert np.array_equal(all_records(checked, contents), truth)
    assert len({record.tobytes() for record in truth}) == contents.records  # none like another


def test_a_record_is_the_tensors_of_its_expert(model, contents, truth):
    """Against the inverse that moves one nibble at a time, so not against our own repack."""
    with cases.opened(model) as (_, checkpoint):
        for (layer, expert), record in zip(places(contents), truth, strict=True):
            found = reference.unpack_record(record, 160, 96)
            prefix = f"model.layers.{layer}.mlp.experts.{expert}."
            for name in ("gate", "up", "down"):
                matrix = getattr(found, name)
                packed = checkpoint.tensor(f"{prefix}{name}_proj.weight_packed")
                scale = checkpoint.tensor(f"{prefix}{name}_proj.weight_scale")
                assert np.array_equal(matrix.packed, packed)
                assert np.array_equal(matrix.scale, scale)


def test_they_say_how_much_they_read(source, contents):
    read = source.read(1, 0, slot(contents))
    if source.kind == "records":
        assert read == contents.stride
    else:
        assert contents.shape.nbytes <= read <= contents.shape.nbytes + 6 * 2 * PAGE


def test_a_file_system_without_direct_io(buffered, source, contents, truth, caplog):
    caplog.set_level(logging.INFO)
    again = FileSource(source.path) if source.kind == "records" else source
    with closing(again):
        assert not again.direct
        assert np.array_equal(all_records(again, contents), truth)
    if source.kind == "records":
        assert "x.records is read through the page cache" in caplog.text


def test_a_file_system_that_takes_the_flag_and_refuses_the_reads(
    source, contents, truth, monkeypatch
):
    """Some FUSE file systems do; that is noticed when the file is opened."""

    def read(fd, buffers, offset):
        if direct_io.fcntl.fcntl(fd, direct_io.fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, buffers, offset)

    real = os.preadv
    monkeypatch.setattr(direct_io.os, "preadv", read)
    if source.kind == "records":
        with closing(FileSource(source.path)) as again:
            assert not again.direct
            assert np.array_equal(all_records(again, contents), truth)
    else:
        with pytest.raises(CheckpointError, match="Invalid argument"):
            source.read(1, 0, slot(contents))  # opened before: no silent change of mind


@pytest.mark.parametrize("prefix", [True, False])
def test_tensors_in_any_order_at_any_byte(own_model, contents, truth, prefix):
    """Shuffled, in one shard, with an odd number of bytes before them."""
    tensors = all_tensors(own_model)
    order = np.random.default_rng(5).permutation(sorted(tensors)).tolist()
    bare = {name if prefix else name.removeprefix("language_model."): name for name in order}
    odd = {"filler": ("U8", [4097 + 2 * prefix], bytes(4097 + 2 * prefix))}
    rewrite(own_model, odd | {new: tensors[old] for new, old in bare.items()})
    with closing(cases.shard_source(own_model)) as source:
        assert np.array_equal(all_records(source, contents), truth)


@pytest.mark.parametrize("steps", [(1, 1000), (4096, 512), (8192, 3), (5000,), (100_000,)])
def test_reads_that_end_early_go_on(source, contents, truth, steps, monkeypatch):
    """The kernel may return any part of what was asked for."""
    real, calls = os.preadv, []

    def part(fd, buffers, offset):
        calls.append(offset)
        count = steps[len(calls) % len(steps)]
        if source.direct and offset % PAGE:
            raise OSError(errno.EINVAL, "Invalid argument")  # what direct reads demand
        whole = real(fd, buffers, offset)
        return min(whole, max(count, PAGE) if source.direct else count)

    monkeypatch.setattr(direct_io.os, "preadv", part)
    assert np.array_equal(all_records(source, contents)[:3], truth[:3])


def test_many_threads_read_at_once(source, contents, truth):
    wrong = []

    def run(seed):
        memory = slot(contents)
        for index in np.random.default_rng(seed).integers(0, contents.records, 40).tolist():
            source.read(*contents.place(index), memory)
            if not np.array_equal(memory[: contents.shape.nbytes], truth[index]):
                wrong.append(index)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_closing_while_threads_read_is_an_error_to_them(source, contents, truth, tmp_path):
    """A descriptor that is closed under a reader would be given to the next file that is opened."""
    said, wrong, begun = [], [], threading.Barrier(5)

    def run():
        memory = slot(contents)
        begun.wait()
        while True:
            try:
                source.read(1, 2, memory)
            except CheckpointError as error:
                said.append(str(error))
                return
            if not np.array_equal(memory[: contents.shape.nbytes], truth[2]):
                wrong.append(1)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    source.close()
    source.close()  # once more does no harm
    for thread in threads:
        thread.join()
    assert len(said) == 4
    assert all("is closed" in line for line in said)
    assert not wrong


def test_a_descriptor_outlives_its_readers(file):
    """`close` during a read leaves the file open until the read is over."""
    opened = direct_io.open_paged(file)
    with opened._reading() as fd:
        opened.close()
        os.fstat(fd)
        with pytest.raises(CheckpointError, match="is closed"):
            opened.stamp()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_an_io_error_is_one_line(source, contents, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(direct_io.os, "preadv", fail)
    with pytest.raises(CheckpointError, match=r"^expert 3 of layer 2: .*Input/output error") as bad:
        source.read(2, 3, slot(contents))
    assert "\n" not in str(bad.value)


@pytest.mark.parametrize("cut", [1, 100, PAGE, 3 * PAGE + 7])
@pytest.mark.parametrize("direct", [True, False])
def test_a_file_cut_short_while_open(source, contents, tmp_path, cut, direct, request):
    if not direct:
        request.getfixturevalue("buffered")
        source = FileSource(source.path) if source.kind == "records" else source
    for path in files_of(source, tmp_path):
        if source.kind == "records":
            os.truncate(path, path.stat().st_size - cut)
        else:
            os.truncate(path, cut)
    layer, expert = contents.place(contents.records - 1)
    with pytest.raises(CheckpointError, match=f"expert {expert} of layer {layer}: .*cut short"):
        source.read(layer, expert, slot(contents))


def test_a_file_replaced_while_open_is_read_to_the_end(source, contents, truth, tmp_path):
    """The name has another file; the descriptor has not. Neither has one that was removed."""
    for number, path in enumerate(files_of(source, tmp_path)):
        other = tmp_path / "other"
        other.write_bytes(b"x" * path.stat().st_size)
        if number % 2:
            path.unlink()
        else:
            other.replace(path)
    assert np.array_equal(all_records(source, contents), truth)


def test_every_bit_of_a_record_counts(file, contents, truth):
    rng = np.random.default_rng(0)
    memory = slot(contents)
    with closing(FileSource(file)) as source:
        for at in [0, contents.shape.nbytes - 1, *rng.integers(0, contents.shape.nbytes, 30)]:
            offset = contents.offset(7) + int(at)
            flip(file, offset)
            with pytest.raises(CheckpointError, match=r"expert 1 of layer 2 is damaged in .*mend"):
                source.read(2, 1, memory)
            source.read(2, 0, memory)
            flip(file, offset)
            source.read(2, 1, memory)
        assert np.array_equal(memory[: contents.shape.nbytes], truth[7])


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def flip(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
        file.flush()
        os.fsync(file.fileno())


def test_a_record_in_another_place_is_an_error(file, contents):
    """Two records exchanged: each is whole, neither is the one asked for."""
    data = bytearray(file.read_bytes())
    a, b = (contents.offset(index) for index in (2, 9))
    data[a : a + PAGE], data[b : b + PAGE] = data[b : b + PAGE], data[a : a + PAGE]
    file.write_bytes(data)
    with closing(FileSource(file)) as source, pytest.raises(CheckpointError, match="is damaged"):
        source.read(*contents.place(2), slot(contents))


def test_a_shard_written_to_while_open_is_an_error(own_model, contents):
    with closing(cases.shard_source(own_model)) as source:
        source.read(1, 0, slot(contents))
        with cases.opened(own_model) as (_, checkpoint):
            info = checkpoint.info("model.layers.1.mlp.experts.0.up_proj.weight_packed")
        flip(own_model / info.file, info.offset)
        with pytest.raises(CheckpointError, match="was written to while in use; load"):
            source.read(1, 0, slot(contents))
        source.read(2, 0, slot(contents))  # in another shard


def test_a_shard_that_is_gone_is_an_error(own_model):
    with cases.opened(own_model) as (text, checkpoint):
        before = open_files()
        shards(own_model)[-2].unlink()
        with pytest.raises(CheckpointError, match=r"cannot read .*No such file"):
            shard_source.ShardSource(own_model, text, checkpoint)
        assert open_files() == before  # those before it are closed again


@pytest.mark.parametrize(("layer", "expert"), [(0, 0), (3, 0), (1, 6), (1, -1), (2, 1 << 40)])
def test_an_expert_that_is_not_there(source, contents, layer, expert):
    with pytest.raises(CheckpointError, match=f"there is no expert {expert} of layer {layer}"):
        source.read(layer, expert, slot(contents))


def test_memory_that_does_not_fit_is_a_mistake_of_the_program(source, contents):
    memory = slot(contents)
    with pytest.raises(ValueError, match="target has 1024 bytes"):
        source.read(1, 0, memory[:1024])
    if source.kind == "records":
        large = direct_io.pages(contents.stride + PAGE, "a test")
        with pytest.raises(ValueError, match="whole pages"):
            source.read(1, 0, large[64 : 64 + contents.stride])


def test_bytes_behind_the_record_are_left_alone(own_model, contents):
    """Repacking writes what a record has and no more."""
    memory = direct_io.pages(contents.stride + PAGE, "a test")
    memory[:] = 0x5A
    with closing(cases.shard_source(own_model)) as source:
        source.read(1, 0, memory)
    assert (memory[contents.shape.nbytes :] == 0x5A).all()


def test_the_file_of_another_model_is_refused(file, contents, tmp_path):
    other = write_tiny(tmp_path / "other", SHAPE, seed=4, vision=False)
    FileSource(file, contents).close()
    with pytest.raises(CheckpointError, match="other weights of the same sizes"):
        FileSource(file, cases.contents(other))
    with pytest.raises(CheckpointError, match="the model has 5 experts"):
        FileSource(file, SMALL)


def test_a_refused_file_stays_not_open(file, tmp_path):
    before = open_files()
    (tmp_path / "noise").write_bytes(b"noise" * 5000)
    for path in (tmp_path / "noise", tmp_path / "absent", tmp_path):
        with pytest.raises(CheckpointError):
            FileSource(path)
    with pytest.raises(CheckpointError):
        FileSource(file, SMALL)
    assert open_files() == before


# What is read for six tensors.

sizes = st.lists(st.integers(1, 3 * PAGE), min_size=1, max_size=6)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_plan_brings_every_tensor_to_where_it_says(data):
    """Against copying each tensor by itself out of files of random bytes."""
    lengths = data.draw(sizes)
    files = [data.draw(st.integers(0, 1)) for _ in lengths]
    offsets = [data.draw(st.integers(0, 3 * GAP)) for _ in lengths]
    disks = [_disk(file, 4 * GAP) for file in (0, 1)]
    spans, at = plan(files, offsets, lengths)
    memory = np.zeros(staging_bytes(lengths), np.uint8)
    taken = np.zeros(len(memory), bool)
    for span in spans:
        assert span.start % PAGE == span.at % PAGE == 0
        end = span.at + -(-(span.end - span.start) // PAGE) * PAGE
        assert end <= len(memory)
        assert not taken[span.at : end].any()
        taken[span.at : end] = True
        memory[span.at : span.at + span.end - span.start] = disks[span.file][span.start : span.end]
    for file, offset, length, place in zip(files, offsets, lengths, at, strict=True):
        want = disks[file][offset : offset + length]
        assert np.array_equal(memory[place : place + length], want)


def _disk(seed, length):
    return np.random.default_rng(seed).integers(0, 256, length + 4 * PAGE, dtype=np.uint8)


def test_neighbours_are_read_at_once():
    """The six tensors of K2.5's experts, one behind the other as published: one read."""
    lengths = tensor_sizes(RecordShape(7168, 2048))
    offsets = np.cumsum([1000, *lengths[:-1]]).tolist()
    spans, _ = plan([0] * 6, offsets, lengths)
    assert [(span.start, span.end) for span in spans] == [(0, 1000 + sum(lengths))]
    near = [offset + number * GAP for number, offset in enumerate(offsets)]
    assert len(plan([0] * 6, near, lengths)[0]) == 1
    apart = [offset + number * (GAP + 1) for number, offset in enumerate(offsets)]
    assert len(plan([0] * 6, apart, lengths)[0]) == 6
    assert len(plan([0, 1] * 3, offsets, lengths)[0]) == 6


@pytest.mark.parametrize("skip", range(5))
@pytest.mark.parametrize("item", [2, 4])
def test_words_are_loaded_from_where_words_may_lie(item, skip):
    memory = direct_io.pages(PAGE, "a test")
    memory[:] = np.arange(PAGE)
    part = memory[skip : skip + 64]
    aligned = shard_source._aligned(part, item)
    assert np.array_equal(aligned, part)
    assert aligned.ctypes.data % item == 0
    assert np.shares_memory(aligned, memory) == (skip % item == 0)  # copied only where it must be


def test_the_sizes_of_the_parts():
    shape = RecordShape(96, 64)
    assert tensor_sizes(shape) == (96 * 64 // 2, 96 * 64 // 16) * 3
    assert sum(tensor_sizes(shape)) == shape.nbytes


def test_a_swapped_part_would_be_seen(model, contents, truth):
    """That the comparisons above can fail: up and gate exchanged."""
    with cases.opened(model) as (_, checkpoint):
        names = shard_source.tensor_names(1, 0)
        parts = [np.frombuffer(checkpoint.tensor(n).tobytes(), np.uint8) for n in names]
    record = np.zeros(contents.shape.nbytes, np.uint8)
    repack_expert(contents.shape, parts, record)
    assert np.array_equal(record, truth[0])
    repack_expert(contents.shape, parts[2:4] + parts[:2] + parts[4:], record)
    assert not np.array_equal(record, truth[0])
