"""Reads of a disk: other places each time, within the file, and an end if it fails."""

import pytest

from hybrid.cache.source import slot_bytes
from hybrid.calibration import disk_rates
from hybrid.calibration.disk_rates import FEWEST_SPANS, DiskRates
from hybrid.errors import CheckpointError

RECORD = 10_000
SPAN = slot_bytes(RECORD)


@pytest.fixture
def model_dir(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"a" * (FEWEST_SPANS * SPAN + 100))
    (tmp_path / "b.safetensors").write_bytes(b"b" * 100)
    (tmp_path / "larger.bin").write_bytes(b"c" * (2 * FEWEST_SPANS * SPAN))
    return tmp_path


@pytest.fixture
def disk(model_dir):
    disk = DiskRates.of(model_dir, RECORD)
    yield disk
    disk.close()


def test_the_largest_file_with_weights_is_read(disk):
    assert disk._file.path.name == "a.safetensors"


def test_each_place_once(disk):
    offsets = [disk._next() for _ in range(FEWEST_SPANS)]
    assert sorted(offsets) == [SPAN * i for i in range(FEWEST_SPANS)]
    assert offsets != sorted(offsets)  # no read-ahead can guess the next
    assert disk._next() == offsets[0]


def test_rates(disk):
    assert disk.alone() > 0
    calls = []
    assert disk.several(0.02, lambda: calls.append(1)) > 0
    assert calls


def test_a_directory_that_says_nothing(tmp_path, model_dir):
    assert DiskRates.of(tmp_path / "absent", RECORD) is None
    (model_dir / "a.safetensors").write_bytes(b"a" * (FEWEST_SPANS * SPAN - 1))
    assert DiskRates.of(model_dir, RECORD) is None


def test_a_file_that_becomes_shorter(disk, model_dir, monkeypatch):
    monkeypatch.setattr(disk_rates, "LONGEST_S", 5.0)
    (model_dir / "a.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="ends at byte"):
        disk.alone()
    with pytest.raises(CheckpointError, match="ends at byte"):
        disk.several(5.0, lambda: None)
