"""How many threads the experts get: physical cores this process may use, never SMT siblings."""

import os
from pathlib import Path

import psutil

_CPU = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


def available_cores(cpu: Path = _CPU, cgroup: Path = _CGROUP) -> int:
    """Physical cores in this process's affinity mask, at most its cgroup CPU quota; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len({_siblings(cpu, index) for index in os.sched_getaffinity(0)})
    else:
        cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return max(1, min(cores, int(_quota(cgroup) or cores)))


def _siblings(cpu: Path, index: int) -> str:
    """The logical CPUs of the core that CPU `index` belongs to; its own number if unknown."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        try:
            return (cpu / f"cpu{index}/topology/{name}").read_text().strip()
        except OSError:
            continue
    return str(index)


def _quota(cgroup: Path) -> float | None:
    """CPUs that cgroup v2 or v1 allows this container, None without a limit."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if limit in ("max", "-1"):
        return None
    return int(limit) / int(period)
