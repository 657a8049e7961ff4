"""How much of the machine others used meanwhile; a number without it says little."""

from dataclasses import dataclass
from time import perf_counter

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds since some moment: of the clock, and of all cores together."""

    clock: float
    busy: float
    stolen: float  # by other guests of the host, where the kernel can tell
    own: float  # of this process and its children, also those that have ended


def usage() -> Usage:
    """The counters now."""
    cores, process = psutil.cpu_times(), psutil.Process()
    own, living = process.cpu_times(), [each.cpu_times() for each in process.children()]
    return Usage(
        perf_counter(),
        busy=cores.user + cores.nice + cores.system,
        stolen=getattr(cores, "steal", 0.0),
        own=own.children_user
        + own.children_system
        + sum(times.user + times.system for times in (own, *living)),
    )


def cores_of_others(before: Usage, after: Usage) -> dict[str, float]:
    """Cores in use elsewhere, on average: by other processes here, and by other guests."""
    seconds = max(after.clock - before.clock, 1e-9)
    others = (after.busy - before.busy) - (after.own - before.own)
    return {
        "others_cores": round(max(0.0, others) / seconds, 2),
        "stolen_cores": round((after.stolen - before.stolen) / seconds, 2),
    }
