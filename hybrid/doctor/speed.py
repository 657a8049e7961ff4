"""Measured against promised: memory, kernels, disk. Only `--deep` measures."""

from hybrid.doctor.check import Check, bad, good, none
from hybrid.hardware import Ram, Rates

OF_PEAK = 0.6  # of what the modules promise; a plain read reaches 0.75 to 0.85
OF_RAM = 0.6  # of a plain read, that the kernel must reach
SLOW_DISK = 1.0  # GB/s
SMALL = 1024  # hidden size below which calls, not bytes, decide
AGAIN = "stop what else runs, then kimi-local doctor --deep"


def memory_bandwidth(rates: Rates, ram: Ram) -> Check:
    """A missing module halves what its channel gives, and nothing else would tell."""
    if rates.ram_gb_s is None:
        return none("memory bandwidth", "--deep measures it")
    found = f"{rates.ram_gb_s:,.1f} GB/s"
    if ram.peak_gb_s is None:
        return none("memory bandwidth", f"{found}; what the modules promise, only root may read")
    share = rates.ram_gb_s / ram.peak_gb_s
    found += f", {share:.0%} of the {ram.peak_gb_s:,.0f} that the modules promise"
    if share >= OF_PEAK:
        return good("memory bandwidth", found)
    return bad(
        "memory bandwidth",
        found,
        "fill every channel with one module of the same speed (sudo dmidecode -t memory), "
        f"use all cores; {AGAIN}",
    )


def kernel_bandwidth(rates: Rates, hidden: int) -> Check:
    """Decoding waits for memory: the expert kernel must read nearly as fast as a plain loop."""
    name = "expert kernel"
    if rates.experts_gb_s is None or rates.ram_gb_s is None:
        return none(name, "--deep measures it")
    found = f"{rates.experts_gb_s:,.1f} GB/s at one token"
    if rates.experts_gflop_s is not None:
        found += f", {rates.experts_gflop_s:,.0f} GFLOP/s in a prompt"
    if hidden < SMALL:
        return none(name, f"{found}; the model is too small to say more")
    share = rates.experts_gb_s / rates.ram_gb_s
    if share >= OF_RAM:
        return good(name, f"{found}, {share:.0%} of a plain read")
    return bad(name, f"{found}, only {share:.0%} of a plain read", AGAIN)


def disk_speed(rates: Rates, needed: bool, measured: bool) -> Check:
    """Where experts are read while they are waited for, the disk is what decides."""
    if not needed:
        return none("disk speed", "all experts have a place in memory, or no model was given")
    if rates.disk_gb_s is None:
        why = "no file of the model is large enough to tell" if measured else "--deep measures it"
        return none("disk speed", why)
    found = f"{rates.disk_gb_s:,.2f} GB/s of whole experts"
    if rates.disk_gb_s >= SLOW_DISK:
        return good("disk speed", found)
    return bad("disk speed", found, "copy the model to a local NVMe drive")
