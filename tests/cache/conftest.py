"""A small checkpoint, its record file, and where a test writes one."""

import pytest

from hybrid.cache import direct_io, part_file
from hybrid.tiny import write_tiny
from tests.cache import record_cases as cases
from tests.cache.prepare_cases import SHAPE


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("prepare") / "model", SHAPE, seed=3, vision=False)


@pytest.fixture(scope="module")
def contents(model):
    return cases.contents(model)


@pytest.fixture(scope="module")
def want(model, contents):
    """The whole file, byte for byte."""
    return cases.true_file(contents, cases.true_records(model))


@pytest.fixture
def output(tmp_path):
    return tmp_path / "x.records"


@pytest.fixture
def whole(output, want):
    """A file that is there already."""
    output.write_bytes(want)
    return output


@pytest.fixture
def often(monkeypatch, contents):
    """A commit every two records."""
    monkeypatch.setattr(part_file, "COMMIT_BYTES", 2 * contents.stride)


@pytest.fixture
def writes(monkeypatch):
    """Offsets at which data are written."""
    seen = []

    def write(fd, buffers, offset):
        seen.append(offset)
        return real(fd, buffers, offset)

    real = direct_io.os.pwritev
    monkeypatch.setattr(direct_io.os, "pwritev", write)
    return seen
