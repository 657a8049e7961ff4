"""activation="auto": measured once, kept, and said."""

import logging

import pytest

from hybrid.cpu_experts import auto_mode, available_isas, kernel_files
from hybrid.cpu_experts.auto_mode import Speeds
from hybrid.errors import ConfigError

fast = pytest.mark.skipif(len(available_isas()) == 1, reason="only the portable kernel runs here")


@pytest.fixture
def kept(monkeypatch):
    """What is on disk, as a dictionary; nothing at first."""
    files = {}
    monkeypatch.setattr(kernel_files, "read", lambda name, key: files.get((name, key)))
    monkeypatch.setattr(
        kernel_files, "write", lambda name, key, content: files.update({(name, key): content})
    )
    auto_mode.known_speeds.cache_clear()
    yield files
    auto_mode.known_speeds.cache_clear()


@pytest.mark.parametrize(
    ("int16", "mode", "loss"), [(10.0, "int16", 0.0), (9.1, "int16", 0.09), (8.9, "int8", 0.11)]
)
def test_a_tenth_is_the_limit(int16, mode, loss):
    speeds = Speeds(int8=10.0, int16=int16)
    assert speeds.mode == mode
    assert speeds.loss == pytest.approx(loss)


def test_a_named_mode_is_not_measured(monkeypatch):
    monkeypatch.setattr(auto_mode, "measure", None)
    for mode in ("int8", "int16", "bf16"):
        assert auto_mode.resolve(mode, None, 2) == mode
    with pytest.raises(ConfigError, match="activation is 'int4'"):
        auto_mode.resolve("int4", None, 2)


def test_the_portable_kernel_takes_int8(monkeypatch):
    monkeypatch.setattr(auto_mode, "measure", None)
    assert auto_mode.resolve("auto", "portable", 2) == "int8"


@fast
def test_auto_is_measured_once_kept_and_said(kept, monkeypatch, caplog):
    answers = iter([Speeds(20.0, 19.0), Speeds(20.0, 5.0)])
    monkeypatch.setattr(auto_mode, "measure", lambda isa, threads: next(answers))
    with caplog.at_level(logging.INFO):
        assert auto_mode.resolve("auto", None, 2) == "int16"
    assert "auto: int16 (one token: int8 20.0 GB/s, int16 19.0 GB/s, 5 % slower)" in caplog.text
    auto_mode.known_speeds.cache_clear()  # as a new process would start
    assert auto_mode.resolve("auto", None, 2) == "int16"
    assert auto_mode.resolve("auto", None, 1) == "int8"  # other threads are another question


@fast
def test_a_damaged_file_is_measured_anew(kept, monkeypatch):
    monkeypatch.setattr(auto_mode, "measure", lambda isa, threads: Speeds(20.0, 19.0))
    isa = available_isas()[-1]
    for content in (b"", b"{", b'{"int8": "x"}', b'{"int8": 0, "int16": 1}', b"[]", b'{"int8": 1}'):
        kept[f"speeds-{isa}-2", ("speeds", isa, 2)] = content
        auto_mode.known_speeds.cache_clear()
        assert auto_mode.resolve("auto", isa, 2) == "int16"


@fast
def test_the_measurement_itself():
    speeds = auto_mode.measure(available_isas()[-1], 1)
    assert speeds.int8 > 0
    assert speeds.int16 > 0
