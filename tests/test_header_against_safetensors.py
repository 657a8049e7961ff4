"""Our header reader against the library: what it refuses we refuse, what both read is alike."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open

from hybrid.checkpoint.header import read_header
from hybrid.errors import CheckpointError

pytestmark = pytest.mark.oracle


def ours(path: Path):
    fd = os.open(path, os.O_RDONLY)
    try:
        infos = read_header(fd, path.name)
        return {name: (info.dtype, list(info.shape)) for name, info in infos.items()}
    except CheckpointError:
        return None
    finally:
        os.close(fd)


def theirs(path: Path):
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
    except SafetensorError:
        return None


def test_a_sound_file_is_read_alike(tiny_dir):
    for path in sorted(tiny_dir.glob("*.safetensors")):
        assert ours(path)
        assert ours(path) == theirs(path)


def test_whatever_the_library_refuses_we_refuse(tiny_dir, tmp_path):
    """Random bytes changed, in the first kilobyte of a header or at its end, or the file cut."""
    rng = np.random.default_rng(0)
    source = min(tiny_dir.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    data = source.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for _ in range(1500):
        damaged = bytearray(data)
        low = 0 if rng.random() < 0.5 else header - 200
        for at in rng.integers(low, min(low + 1000, header), rng.integers(1, 4)):
            damaged[at] = int(rng.choice([rng.integers(32, 127), rng.integers(0, 256)]))
        if rng.random() < 0.1:
            del damaged[rng.integers(0, len(damaged)) :]
        path = tmp_path / "damaged.safetensors"
        path.write_bytes(damaged)
        if theirs(path) is None:
            refused += 1
            assert ours(path) is None, bytes(damaged[:header])
        elif (read := ours(path)) is not None:
            assert read == theirs(path)
    assert refused > 500


def test_the_comparison_sees_a_lenient_reader(tiny_dir, tmp_path):
    """A header that claims one byte more than the file has: both must refuse, and both do."""
    source = min(tiny_dir.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    path = shutil.copy(source, tmp_path / "short.safetensors")
    os.truncate(path, path.stat().st_size - 1)
    assert theirs(path) is None
    assert ours(path) is None
