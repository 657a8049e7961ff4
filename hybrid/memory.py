"""How much memory this process may still take."""

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (  # limit, use, and what of the use is page cache that the kernel gives back
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def free_host_bytes(cgroup: Path = CGROUP) -> int:
    """Return what the machine has available, or what the container's limit leaves of it.

    Page cache does not count as used: a model just copied here fills it, and the kernel gives it
    back when asked.
    """
    free = int(psutil.virtual_memory().available)
    for limit, used, stat, reclaimable in CGROUP_FILES:
        try:
            spent = int((cgroup / used).read_text()) - _field(cgroup / stat, reclaimable)
            return min(free, max(0, int((cgroup / limit).read_text()) - spent))
        except (OSError, ValueError):  # another version, or no limit ("max")
            continue
    return free


def _field(stat: Path, name: str) -> int:
    fields = dict(line.split(maxsplit=1) for line in stat.read_text().splitlines())
    return int(fields.get(name, 0))
