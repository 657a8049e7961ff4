"""Why a test of this folder cannot run here, said in its skip."""

import importlib.util
import platform
import sys

import pytest

X86_LINUX = sys.platform == "linux" and platform.machine() == "x86_64"


def needs(*packages: str) -> pytest.MarkDecorator:
    """Skip, with the reason, where a package is missing or the host runs no x86-64 Linux."""
    if not X86_LINUX:
        return pytest.mark.skip(reason=f"x86-64 Linux only; this is {platform.platform()}")
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    reason = f"{', '.join(missing)} is not installed; pip install 'kimi-local[test]' brings it"
    return pytest.mark.skipif(bool(missing), reason=reason)


needs_emulator = needs("bochscpu")
needs_disassembler = needs("iced_x86")
