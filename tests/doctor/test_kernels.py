"""The kernel check runs the kernels; the file check writes a file."""

import pytest

from hybrid.cpu_experts import available_isas, kernel_files, selfcheck
from hybrid.doctor import kernels
from hybrid.errors import KernelError


def test_the_set_of_this_machine():
    check = kernels.kernel_set(available_isas()[-1], True, selfcheck.verify)
    assert check.ok or available_isas() == ("portable",)


def test_a_kernel_that_computes_something_else(monkeypatch):
    real = selfcheck._outputs

    def wrong(isa, activation):
        return real("portable", activation) * (1 if isa == "portable" else 2)

    monkeypatch.setattr(selfcheck, "_outputs", wrong)
    if available_isas() == ("portable",):
        pytest.skip("nothing to compare")
    check = kernels.kernel_set(available_isas()[-1], True, selfcheck.verify)
    assert check.ok is False
    assert "differs from the portable one" in check.found
    assert "--isa portable" in check.fix


def test_the_portable_set_is_a_fault_where_there_are_better_ones():
    assert kernels.kernel_set("portable", True, lambda _: None).ok is False
    assert kernels.kernel_set("portable", False, lambda _: None).ok is None


def test_a_refusal_is_an_answer():
    def verify(_):
        raise KernelError("cannot link")

    assert kernels.kernel_set("avx2", True, verify).found == "cannot link"


def test_kernel_files(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_files, "_directories", lambda: [tmp_path])
    assert kernels.kernel_files_kept(kernel_files.read, kernel_files.write).ok
    assert list(tmp_path.glob("doctor-*.kernel"))
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(kernel_files, "_directories", lambda: [tmp_path / "file"])
    check = kernels.kernel_files_kept(kernel_files.read, kernel_files.write)
    assert check.ok is False
    assert "NUMBA_CACHE_DIR" in check.fix
