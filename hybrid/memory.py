"""How much memory this process may still take."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Files:
    """What one version of control groups calls its files."""

    folder: str  # of the groups, below the mount point
    controller: str  # in a line "number:controllers:path" of OWN_GROUPS; version 2 names none
    limit: str
    used: str
    reclaimable: str  # in memory.stat: page cache that the kernel gives back


VERSIONS = (
    Files("", "", "memory.max", "memory.current", "inactive_file"),
    Files(
        "memory",
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def free_host_bytes(cgroup: Path = CGROUP, own: Path = OWN_GROUPS) -> int:
    """Return what the machine has available, or what the tightest group's limit leaves of it.

    The limit of a process's own group counts, and that of every group above it. Page cache does not
    count as used: a model just copied here fills it, and the kernel gives it back when asked.
    """
    left = [int(psutil.virtual_memory().available)]
    for files in VERSIONS:
        for group in groups(cgroup / files.folder, own_path(own, files.controller)):
            try:
                spent = int((group / files.used).read_text())
                spent -= _field(group / "memory.stat", files.reclaimable)
                left.append(max(0, int((group / files.limit).read_text()) - spent))
            except (OSError, ValueError):  # another version, or no limit ("max")
                continue
    return min(left)


def groups(root: Path, path: PurePosixPath) -> Iterator[Path]:
    """The group and all above it. Seen from within a container, some or all are hidden."""
    group = root
    yield group
    if ".." not in path.parts:
        for part in path.parts[1:]:
            group = group / part
            yield group


def own_path(own: Path, controller: str) -> PurePosixPath:
    """The process's group below the root; "/" if nobody says."""
    try:
        lines = own.read_text().splitlines()
    except (OSError, ValueError):
        return PurePosixPath("/")
    fields = (line.split(":", 2) for line in lines)
    paths = [line[2] for line in fields if len(line) == 3 and controller in line[1].split(",")]
    return PurePosixPath(paths[0] if paths else "/")


def _field(stat: Path, name: str) -> int:
    fields = dict(line.split(maxsplit=1) for line in stat.read_text().splitlines())
    return int(fields.get(name, 0))
