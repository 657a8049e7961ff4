"""A child process in which Triton interprets, for all tests of kernels."""

import importlib.util

import pytest

from tests.gpu_attention.interpreted import Interpreter


@pytest.fixture(scope="session")
def interpreter():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    child = Interpreter()
    yield child
    child.close()
