"""Asking the kernel for AMX tiles: every answer that it can give, and the one it gives here."""

import ctypes
import errno
import logging
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybrid.cpu_experts import amx
from hybrid.cpu_experts.amx import amx_permitted, request
from tests.contracts.files import ROOT

SUPPORTED, PERMITTED, REQUEST = 0x1021, 0x1022, 0x1023
TILES = 1 << 17 | 1 << 18


class Kernel:
    """What arch_prctl does on a machine with these states."""

    def __init__(self, supported=0x2E7 | TILES, refuses=0, grants=TILES, knows=True):
        self.supported, self.refuses, self.grants, self.knows = supported, refuses, grants, knows
        self.permitted, self.calls = 0x2E7, []

    def __call__(self, code, argument):
        self.calls.append(code)
        if not self.knows:
            return errno.EINVAL
        if code == REQUEST:
            assert argument == 18
            if not self.refuses:
                self.permitted |= self.grants
            return self.refuses
        mask = {SUPPORTED: self.supported, PERMITTED: self.permitted}[code]
        ctypes.c_uint64.from_address(argument).value = mask
        return 0


@pytest.fixture(autouse=True)
def ask_again() -> Iterator[None]:
    amx_permitted.cache_clear()
    yield
    amx_permitted.cache_clear()


def test_a_kernel_that_grants(caplog):
    kernel = Kernel()
    with caplog.at_level(logging.INFO):
        assert request(kernel)
    assert kernel.calls == [SUPPORTED, REQUEST, PERMITTED]
    assert caplog.records == []


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (Kernel(supported=0x7), "can save states 0x7"),
        (Kernel(supported=0x7 | 1 << 17), "can save states 0x20007"),
        (Kernel(knows=False), "can save states 0x0"),
        (Kernel(refuses=errno.EPERM), "refused tile data, EPERM"),
        (Kernel(refuses=errno.ENOSPC), "ENOSPC: an alternate signal stack"),
        (Kernel(refuses=1234), "refused tile data, 1234"),
        (Kernel(grants=0), "granted states 0x2e7"),
    ],
)
def test_a_kernel_that_does_not(kernel, text, caplog):
    with caplog.at_level(logging.INFO):
        assert not request(kernel)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert text in record.getMessage()
    assert "\n" not in record.getMessage()


def test_the_kernel_is_asked_once(monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(amx, "_arch_prctl", kernel)
    assert amx_permitted()
    assert amx_permitted()
    assert kernel.calls.count(REQUEST) == 1


@pytest.mark.parametrize(("system", "machine"), [("darwin", "x86_64"), ("linux", "aarch64")])
def test_elsewhere_nobody_is_asked(system, machine, monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(amx, "_arch_prctl", kernel)
    assert not amx_permitted()
    assert kernel.calls == []


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="the system call is that of x86-64 Linux",
)
def test_the_real_kernel_answers_as_its_cpu_says(caplog):
    """In a process of its own, because a grant cannot be taken back."""
    code = (
        "import logging; logging.basicConfig(level=logging.INFO)\n"
        "from hybrid.cpu_experts.amx import amx_permitted\n"
        "import sys; sys.stdout.write(str(amx_permitted()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    has_tiles = "amx_tile" in Path("/proc/cpuinfo").read_text().split()
    assert done.stdout == str(has_tiles)
    assert done.stderr.count("AMX is off") == (not has_tiles)
