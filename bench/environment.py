"""What every number of a bench depends on; part of each JSON line."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from hybrid.cpu_experts import available_isas
from hybrid.cpu_experts.cores import available_cores


def environment() -> dict[str, object]:
    """Machine, software, commit and command."""
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    load = Path("/proc/loadavg")
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": available_cores(),
        "isas": available_isas(),
        "huge_pages": pages.read_text().strip() if pages.exists() else "unknown",
        "load_average": load.read_text().split()[0] if load.exists() else "unknown",
        "numba": version("numba"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "commit": commit,
        "command": " ".join(sys.argv),
    }
