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
    own: float  # of this process


def usage() -> Usage:
    """The counters now."""
    cores, own = psutil.cpu_times(), psutil.Process().cpu_times()
    return Usage(
        perf_counter(),
        busy=cores.user + cores.nice + cores.system,
        stolen=getattr(cores, "steal", 0.0),
        own=own.user + own.system,
    )


def cores_of_others(before: Usage, after: Usage) -> dict[str, float]:
    """Cores in use elsewhere, on average: by other processes here, and by other guests."""
    seconds = max(after.clock - before.clock, 1e-9)
    others = (after.busy - before.busy) - (after.own - before.own)
    return {
        "others_cores": round(max(0.0, others) / seconds, 2),
        "stolen_cores": round((after.stolen - before.stolen) / seconds, 2),
    }
