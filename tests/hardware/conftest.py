import pytest

from tests.hardware.machines import Machine


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An empty machine to describe."""
    return Machine(tmp_path / "machine", monkeypatch)
