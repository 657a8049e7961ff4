"""A model on a machine: readable or not, fitting or not, prepared or not."""

import shutil
from dataclasses import replace

import pytest

from hybrid.cache.prepare import prepare
from hybrid.doctor import model
from hybrid.hardware import Cpu, Disk, Hardware, Ram
from hybrid.placement import PlanOptions, builtin_config, plan
from hybrid.tiny import TinyShape, write_tiny

ROOM = Disk(total_bytes=1 << 40, free_bytes=1 << 40, direct=True)
TB = 10**12


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    shape = TinyShape(num_hidden_layers=2, n_routed_experts=4, num_experts_per_tok=2)
    return write_tiny(tmp_path_factory.mktemp("doctor") / "model", shape, vision=False)


@pytest.fixture
def model_dir(written, tmp_path):
    return shutil.copytree(written, tmp_path / "model")


@pytest.fixture
def opened(model_dir):
    return model.checkpoint(model_dir)[1]


def planned(free):
    """K2.5 on a machine with so many bytes of RAM free."""
    hardware = Hardware(cpu=Cpu(cores=32), ram=Ram(total_bytes=free, free_bytes=free))
    return plan(builtin_config(), hardware, PlanOptions())


def test_a_checkpoint_that_can_be_read(model_dir):
    check, opened = model.checkpoint(model_dir)
    assert check.ok
    assert opened is not None
    assert opened.contents.records == 4


def test_no_checkpoint():
    check, opened = model.checkpoint(None)
    assert (check.ok, opened) == (None, None)


@pytest.mark.parametrize("fault", ["config.json", "shard", "directory"])
def test_a_checkpoint_that_cannot_be_read(model_dir, fault):
    if fault == "directory":
        shutil.rmtree(model_dir)
    elif fault == "config.json":
        (model_dir / fault).write_text("{")
    else:
        shard = next(iter(sorted(model_dir.glob("*.safetensors"))))
        shard.write_bytes(shard.read_bytes()[:100])
    check, opened = model.checkpoint(model_dir)
    assert (check.ok, opened) == (False, None)
    assert check.fix.startswith("kimi-local inspect")


def test_memory():
    assert model.memory(None).ok is None
    whole = model.memory(planned(TB))
    assert whole.ok
    assert whole.found.endswith("384 of 384 experts of a layer in memory")
    part = model.memory(planned(TB // 4))
    assert part.ok
    assert "384 of 384" not in part.found
    none = model.memory(planned(TB // 100))
    assert none.ok is False
    assert none.fix


def test_a_prepared_file(opened):
    assert model.prepared(opened, True, ROOM).fix == f"kimi-local prepare {opened.path}"
    assert model.prepared(opened, False, ROOM).ok is None
    prepare(opened.path)
    assert model.prepared(opened, True, ROOM).ok
    assert model.prepared(opened, False, ROOM).ok
    assert model.prepared(None, True, ROOM).ok is None


def test_a_prepared_file_that_is_damaged(opened):
    prepare(opened.path)
    file = opened.path / "experts.records"
    content = bytearray(file.read_bytes())
    content[4096] ^= 1  # a checksum in the table
    file.write_bytes(content)
    check = model.prepared(opened, True, ROOM)
    assert check.ok is False
    assert "damaged" in check.found
    assert check.fix.endswith("--force")


def test_a_prepared_file_of_another_model(opened):
    prepare(opened.path)
    opened.contents = replace(opened.contents, fingerprint=b"x" * 16)
    check = model.prepared(opened, True, ROOM)
    assert check.ok is False
    assert "other weights" in check.found


def test_no_room_for_a_prepared_file(opened):
    check = model.prepared(opened, True, replace(ROOM, free_bytes=10_000))
    assert check.ok is False
    assert "short of it" in check.found


@pytest.mark.parametrize(
    ("direct", "from_file", "ok"),
    [(True, True, True), (False, True, False), (False, False, None), (None, True, None)],
)
def test_direct_reads(direct, from_file, ok):
    assert model.direct_reads(replace(ROOM, direct=direct), from_file).ok is ok


def test_direct_reads_of_no_disk():
    assert model.direct_reads(None, False).ok is None
