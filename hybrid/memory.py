"""How much memory this process may still take."""

from pathlib import Path

import psutil

CGROUP_FILES = (  # limit and use, version 2 then version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def free_host_bytes() -> int:
    """Return what the machine has available, or what the container's limit leaves of it."""
    free = int(psutil.virtual_memory().available)
    for limit, used in CGROUP_FILES:
        left = _cgroup_left(Path(limit), Path(used))
        if left is not None:
            return min(free, left)
    return free


def _cgroup_left(limit: Path, used: Path) -> int | None:
    """None where there is no such file or no limit; page cache counts as used, on the safe side."""
    try:
        return max(0, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # absent, or "max"
        return None
