"""CPU: name, kernel set, cores that this process may use, NUMA nodes, caches.

/proc/cpuinfo                          model name, flags
/sys/devices/system/cpu, node          cores and nodes (hybrid/cpu_experts/topology.py)
.../cpu0/cache/index2/{level,size,shared_cpu_list}
"""

from collections.abc import Iterator
from pathlib import Path

from hybrid.hardware import kernel_text
from hybrid.hardware.description import Cpu
from hybrid.hardware.roots import HERE, Roots

MOST_CACHES = 16  # of one CPU
MACHINES = ("x86_64", "AMD64")
# /proc/cpuinfo's names of what isas.py calls by LLVM's
FLAGS = {
    "abm": "lzcnt",
    "bmi1": "bmi",
    "avx_vnni": "avxvnni",
    "avx512_vnni": "avx512vnni",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
}


def read_cpu(roots: Roots = HERE) -> Cpu:
    """What this process may use of the CPU that `roots` shows."""
    from hybrid.cpu_experts.cores import available_cores
    from hybrid.cpu_experts.topology import read_topology, siblings

    system, groups = roots.system / "devices/system", roots.system / "fs/cgroup"
    topology = read_topology(system, groups)
    first = [cpu for node in topology.nodes for cpu in node]
    return Cpu(
        name=_name(roots),
        isa=_kernel_set(roots),
        cores=available_cores(system, groups),
        threads_per_core=max((len(siblings(cpu, system)) for cpu in first), default=1),
        nodes=len(topology.nodes) or 1,
        l2_bytes=cache_bytes(system, first, level=2),
        l3_bytes=cache_bytes(system, first, level=3),
    )


def _name(roots: Roots) -> str | None:
    """As the CPU calls itself; on boards without such a name, what the board is called."""
    lines = kernel_text.text(roots.processes / "cpuinfo")
    for field in ("model name", "Processor", "Hardware"):
        if found := kernel_text.field(lines, field):
            return kernel_text.name(found)
    board = kernel_text.text(roots.processes / "device-tree/model")
    return kernel_text.name(board.rstrip("\0"))


def _kernel_set(roots: Roots) -> str:
    """The kernels this machine would run: asked of LLVM here, of the flags elsewhere."""
    from hybrid.cpu_experts import available_isas

    if roots == HERE:
        return available_isas()[-1]
    lines = kernel_text.text(roots.processes / "cpuinfo")
    return kernel_set_of(frozenset((kernel_text.field(lines, "flags") or "").split()))


def kernel_set_of(flags: frozenset[str]) -> str:
    """The best kernel set for a CPU with these flags of /proc/cpuinfo."""
    from hybrid.cpu_experts.isas import ISAS

    features = {FLAGS.get(flag, flag) for flag in flags}
    return next((isa.name for isa in reversed(ISAS.values()) if isa.needs <= features), "portable")


def cache_bytes(system: Path, cpus: list[int], level: int) -> int | None:
    """All caches of a level that serve these CPUs, each counted once; None if none is shown."""
    found: dict[str, int] = {}
    for cpu in cpus:
        for index in _caches(system, cpu):
            if kernel_text.number(index / "level") != level:
                continue
            sharers = kernel_text.text(index / "shared_cpu_list") or str(cpu)
            found[sharers] = kernel_text.size(index / "size") or 0
    return sum(found.values()) or None


def _caches(system: Path, cpu: int) -> Iterator[Path]:
    for index in range(MOST_CACHES):
        folder = system / f"cpu/cpu{cpu}/cache/index{index}"
        if folder.is_dir():
            yield folder
