"""How many threads the experts get, and on which core each of them lives.

Memory channels are what decode needs, and each node has its own: threads are dealt to the nodes in
turn, and within a node to cores evenly apart, since neighbours share a cache and its way to memory.

    nodes ((0, 1, 2, 3), (4, 5, 6, 7)), 4 threads     seats 0, 2 | 4, 6
    the caller runs on CPU 4                          it has seat 4; workers are pinned to 0, 2, 6

The caller is the user's thread and is never pinned: with all other seats taken, the scheduler finds
it the free one. More threads than cores, or a container's quota below the cores it sees, means that
cores are shared; then nobody is pinned, and nothing is known about nodes.
"""

import ctypes
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hybrid.cpu_experts.topology import CGROUP, SYSTEM, Topology, read_topology, siblings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """What one node contributes to a pool."""

    memory_node: int | None  # the kernel's number, for arena.allocate; None: any memory will do
    cores: tuple[int | None, ...]  # one for each thread; None: wherever the scheduler likes


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one thread works: its node counts from 0 within the pool."""

    node: int
    core: int | None


def available_cores(system: Path = SYSTEM, cgroup: Path = CGROUP) -> int:
    """Physical cores in this process's affinity mask, at most its cgroup CPU quota; at least 1."""
    topology = read_topology(system, cgroup)
    return max(1, int(min(topology.cores, topology.quota or topology.cores)))


def shares(topology: Topology, threads: int) -> tuple[Share, ...]:
    """Spread the threads over the nodes; those that get none are left out."""
    if threads > topology.cores or topology.shared:
        if threads > 1:
            _say_once(f"{threads} threads on {_seen(topology)}: they are not pinned")
        return (Share(None, (None,) * threads),)
    counts = _dealt([len(cores) for cores in topology.nodes], threads)
    spread = [
        Share(node, tuple(cores[i * len(cores) // count] for i in range(count)))
        for node, cores, count in zip(topology.ids, topology.nodes, counts, strict=True)
        if count
    ]
    if len(spread) == 1:
        return (Share(None, spread[0].cores),)
    return tuple(spread)


def _dealt(rooms: Sequence[int], threads: int) -> list[int]:
    """`threads` dealt one by one to the node that has fewest and a core left."""
    counts = [0] * len(rooms)
    for _ in range(threads):
        free = (node for node, room in enumerate(rooms) if counts[node] < room)
        counts[min(free, key=counts.__getitem__)] += 1
    return counts


def seats(shares: Sequence[Share], topology: Topology, here: frozenset[int]) -> list[Seat]:
    """A seat for each thread, the caller's first: the one where it runs now, or else on its node.

    `here` are the logical CPUs of the core that the caller runs on; empty if unknown.
    """
    all_seats = [Seat(node, core) for node, share in enumerate(shares) for core in share.cores]
    home = next((own for own in topology.nodes if here & set(own)), ())
    own = min(all_seats, key=lambda seat: (seat.core not in here, seat.core not in home))
    all_seats.remove(own)
    return [own, *all_seats]


def current_core() -> frozenset[int]:
    """The logical CPUs of the core that runs the calling thread; empty where nobody can tell."""
    try:
        cpu = int(ctypes.CDLL(None).sched_getcpu())
    except (AttributeError, OSError, TypeError):  # no such function, or no such library
        return frozenset()
    return siblings(cpu) if cpu >= 0 else frozenset()


def pin(core: int | None) -> None:
    """Keep the calling thread on one logical CPU; where that is refused, it stays free."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        return
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        log.debug("cannot pin a thread to CPU %d (%s)", core, error)


def _seen(topology: Topology) -> str:
    limit = f" with a quota of {topology.quota:g}" if topology.shared else ""
    return f"{topology.cores} cores{limit}"


@cache
def _say_once(text: str) -> None:
    log.info(text)
