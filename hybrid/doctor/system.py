"""How the operating system is set: huge pages, cores, NUMA, swap."""

from hybrid.cpu_experts.topology import Topology
from hybrid.doctor.check import Check, bad, gigabytes, good, none
from hybrid.hardware import Roots
from hybrid.hardware.kernel_text import field, number, text

SWAPPINESS = 10  # up to which the kernel leaves memory in use alone
TIGHT = 0.7  # share of the RAM that a model takes, from which on swapping threatens it
TLB_FILE = "/sys/kernel/mm/transparent_hugepage/enabled"


def huge_pages(setting: str | None) -> Check:
    """Experts are read in strides: with pages of 4 KiB the CPU looks up addresses all the time."""
    if setting is None:
        return none("huge pages", "this kernel does not say")
    if setting == "never":
        return bad("huge pages", "never", f"echo madvise | sudo tee {TLB_FILE}")
    return good("huge pages", setting)


def cores(topology: Topology, threads_per_core: int | None) -> Check:
    """One thread a core, pinned, unless a quota says that the cores are shared."""
    count, each = topology.cores, threads_per_core or 1
    found = f"{count} cores" if count > 1 else "1 core"
    if each > 1:
        found += f" of {each} hardware threads; one of each is used"
    if topology.shared:
        return bad(
            "cores",
            f"{found}, but a quota of {topology.quota:g}: threads are not pinned and wait in turn",
            f"give the container whole cores (docker run --cpuset-cpus=0-{count - 1}), no --cpus",
        )
    return good("cores", found)


def numa(topology: Topology, roots: Roots) -> Check:
    """Weights are placed next to the cores that read them; the kernel must leave them there."""
    nodes = len(topology.nodes)
    if nodes < 2:
        return none("NUMA", "one node")
    if number(roots.processes / "sys/kernel/numa_balancing"):
        return bad(
            "NUMA",
            f"{nodes} nodes, and the kernel moves pages between them on its own",
            "echo 0 | sudo tee /proc/sys/kernel/numa_balancing",
        )
    return good("NUMA", f"{nodes} nodes, pages stay where they are put")


def swap(roots: Roots, wanted_bytes: int | None, total_bytes: int | None) -> Check:
    """A model that fills the RAM must not be written to swap to make room for files."""
    size = swap_bytes(roots)
    if size is None or not total_bytes:
        return none("swap", "this kernel does not say")
    if not size:
        return good("swap", "none")
    swappiness = number(roots.processes / "sys/vm/swappiness")
    found = f"{gigabytes(size)}, swappiness {'unknown' if swappiness is None else swappiness}"
    if wanted_bytes is None or wanted_bytes < TIGHT * total_bytes:
        return none("swap", f"{found}; RAM is not tight")
    if swappiness is None or swappiness <= SWAPPINESS:
        return good("swap", found)
    return bad("swap", f"{found}: weights may be swapped out", "sudo sysctl vm.swappiness=1")


def swap_bytes(roots: Roots) -> int | None:
    """All swap space."""
    found = (field(text(roots.processes / "meminfo"), "SwapTotal") or "").split()
    return int(found[0]) * 1024 if found and found[0].isdigit() else None
