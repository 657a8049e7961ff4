"""Which cores this process may use, and which memory each is next to, as Linux tells in /sys.

    node/node0/cpulist                   "0-3,8-11"      CPUs that are online
    node/has_memory                      "0"             node 1 below has no memory of its own
    node/node1/distance                  "12 10"         to nodes 0, 1
    cpu/cpu0/topology/core_cpus_list     "0,8"           two hardware threads of one core
                                                          -> nodes ((0, 1, 2, 3, ...),), ids (0,)

A container may see only part of this, and other systems none. What is missing is taken in the way
that claims least: a CPU without a known core is a core, one without a known node is in the first.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

SYSTEM = Path("/sys/devices/system")
CGROUP = Path("/sys/fs/cgroup")
UNKNOWN = 255  # the most that `distance` can say; of a node itself it says 10


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes that have cores for this process, and memory next to them or near."""

    nodes: tuple[tuple[int, ...], ...]  # per node one logical CPU of each physical core
    ids: tuple[int, ...]  # how the kernel numbers these nodes
    quota: float | None = None  # CPUs' worth of time that a container may take

    @property
    def cores(self) -> int:
        """Physical cores in all."""
        return sum(map(len, self.nodes))

    @property
    def shared(self) -> bool:
        """Whether a quota below the cores says that others run on them as well."""
        return self.quota is not None and self.quota < self.cores


def read_topology(system: Path = SYSTEM, cgroup: Path = CGROUP) -> Topology:
    """Return what this process may use: at least one node, with at least one core."""
    allowed = _allowed_cpus(system / "cpu")
    cores = {min(siblings(cpu, system) & allowed) for cpu in allowed}
    nodes: dict[int, set[int]] = {}
    for node, cpus in _node_cpus(system / "node").items():
        home = _with_memory(node, system / "node")
        nodes.setdefault(home, set()).update(cores & cpus)
    stray = cores.difference(*nodes.values())
    if stray:
        first = min((node for node, own in nodes.items() if own), default=0)
        nodes.setdefault(first, set()).update(stray)
    ids = tuple(sorted(node for node, own in nodes.items() if own))
    return Topology(tuple(tuple(sorted(nodes[node])) for node in ids), ids, _quota(cgroup))


def siblings(cpu: int, system: Path = SYSTEM) -> frozenset[int]:
    """The logical CPUs of the core that `cpu` belongs to; itself alone if nothing else is known."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        found = _cpu_list(system / f"cpu/cpu{cpu}/topology/{name}")
        if found:
            return found | {cpu}
    return frozenset({cpu})


def _allowed_cpus(folder: Path) -> frozenset[int]:
    """The affinity mask, without CPUs that are offline; elsewhere, a number for each core."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset(range(psutil.cpu_count(logical=False) or os.cpu_count() or 1))
    allowed = frozenset(os.sched_getaffinity(0))
    return (allowed & (_cpu_list(folder / "online") or allowed)) or allowed


def _node_cpus(folder: Path) -> dict[int, frozenset[int]]:
    """The CPUs of every online node; empty without NUMA."""
    names = (path.name.removeprefix("node") for path in folder.glob("node[0-9]*"))
    nodes = sorted(int(name) for name in names if name.isdigit())
    return {node: _cpu_list(folder / f"node{node}/cpulist") for node in nodes}


def _with_memory(node: int, folder: Path) -> int:
    """`node`, or where it has no memory the nearest that has: that is where its pages come from."""
    memory = _cpu_list(folder / "has_memory")
    if not memory or node in memory:
        return node
    return min(memory, key=lambda other: (_distance(node, other, folder), other))


def _distance(node: int, other: int, folder: Path) -> int:
    """Nodes are numbered with gaps, columns of `distance` are not."""
    row = _text(folder / f"node{node}/distance").split()
    columns = sorted(_node_cpus(folder))
    try:
        return int(row[columns.index(other)])
    except (IndexError, ValueError):
        return UNKNOWN


def _cpu_list(path: Path) -> frozenset[int]:
    """Parse "0-3,8"; a file that is missing or says something else is empty."""
    try:
        return frozenset(_ranges(_text(path).split(",")))
    except ValueError:
        return frozenset()


def _ranges(parts: Iterable[str]) -> Iterable[int]:
    for part in parts:
        if part.strip():
            first, _, last = part.partition("-")
            yield from range(int(first), int(last or first) + 1)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _quota(cgroup: Path) -> float | None:
    """CPUs that cgroup v2 or v1 allows this container, None without a limit."""
    try:
        limit, period = _text(cgroup / "cpu.max").split()
    except ValueError:
        limit = _text(cgroup / "cpu/cpu.cfs_quota_us").strip()
        period = _text(cgroup / "cpu/cpu.cfs_period_us").strip()
    try:
        return int(limit) / int(period) if int(limit) > 0 else None
    except (ValueError, ZeroDivisionError):  # no limit: "max", "-1", or no such file
        return None
