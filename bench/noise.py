"""How much of the machine others used while a bench ran; a number without it says little."""

import time
from dataclasses import dataclass

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
    cores = psutil.cpu_times()
    process = psutil.Process()
    mine = process.cpu_times()
    spent = [mine, *(each.cpu_times() for each in process.children())]
    return Usage(
        time.perf_counter(),
        busy=cores.user + cores.nice + cores.system,
        stolen=getattr(cores, "steal", 0.0),
        own=sum(times.user + times.system for times in spent)
        + mine.children_user
        + mine.children_system,
    )


def cores_of_others(before: Usage, after: Usage) -> dict[str, float]:
    """Cores in use elsewhere, on average: by other processes here, and by other guests."""
    seconds = after.clock - before.clock
    others = (after.busy - before.busy) - (after.own - before.own)
    return {
        "others_cores": round(max(0.0, others) / seconds, 2),
        "stolen_cores": round((after.stolen - before.stolen) / seconds, 2),
    }
