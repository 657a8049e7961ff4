"""Rates on disk: read again on the same machine, unknown on every other one."""

from dataclasses import replace

import pytest

from hybrid.cpu_experts import kernel_files
from hybrid.hardware import K25, Cpu, Rates, kept_rates
from hybrid.hardware.kept_rates import RatesOf, keep, known_rates

WHAT = RatesOf("avx2", 2, "int8")
FOUND = Rates(ram_gb_s=20.0, experts_gb_s=18.0, step_s=1e-4, disk_gb_s=3.0, measured=True)


@pytest.fixture(autouse=True)
def files(monkeypatch):
    """What is kept, by name and key, instead of files."""
    kept = {}
    monkeypatch.setattr(kernel_files, "read", lambda name, key: kept.get((name, repr(key))))
    monkeypatch.setattr(
        kernel_files, "write", lambda name, key, content: kept.update({(name, repr(key)): content})
    )
    return kept


def test_what_was_kept_is_known(tmp_path):
    keep(FOUND, WHAT, tmp_path)
    assert known_rates(WHAT, tmp_path) == FOUND
    assert known_rates(WHAT) == replace(FOUND, disk_gb_s=None)  # of no disk in particular


@pytest.mark.parametrize(
    "other",
    [
        RatesOf("avx2", 1, "int8"),
        RatesOf("avx512bw", 2, "int8"),
        RatesOf("avx2", 2, "int16"),
        RatesOf("avx2", 2, "int8", replace(K25, hidden_size=64)),
    ],
)
def test_other_options_have_other_rates(other):
    keep(FOUND, WHAT)
    assert known_rates(other) == Rates()


def test_another_machine_has_other_rates(monkeypatch):
    keep(FOUND, WHAT)
    monkeypatch.setattr(kept_rates, "read_cpu", lambda: Cpu(name="another"))
    assert known_rates(WHAT) == Rates()


def test_another_disk_has_other_rates(tmp_path, monkeypatch):
    keep(FOUND, WHAT, tmp_path)
    monkeypatch.setattr(kept_rates, "_device", lambda _: 12345)
    assert known_rates(WHAT, tmp_path).disk_gb_s is None
    monkeypatch.undo()
    assert known_rates(WHAT, tmp_path / "absent").disk_gb_s is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"ram_gb_s": -1}', b'{"colour": 1}', b"\xff", b" " * (1 << 17)]
)
def test_anything_else_is_nothing(files, content):
    keep(FOUND, WHAT)
    files.update(dict.fromkeys(files, content))
    assert known_rates(WHAT) == Rates()
