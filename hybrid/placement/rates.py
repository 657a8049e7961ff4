"""Every rate that a plan needs: measured where it was, else from what the parts promise.

What is assumed is named, so that a plan can say so. Sources of the shares: a plain read reaches 75
to 80 % of what the DIMMs promise; the kernels of this runtime reach 0.9 of a plain read and more
(docs/log.md); pinned copies reach 0.8 of the link (cards.py). Rates of a device are those of the
first card. Per-core figures are those of the AVX2 kernels
measured in docs/log.md; no faster instruction set has been timed yet, so that theirs are guesses.
"""

from dataclasses import dataclass, fields

from hybrid.hardware import Gpu, Hardware, Rates
from hybrid.placement.cards import in_order, link_gb_s, memory_gb_s

RAM_OF_PEAK = 0.75
NODES_SHARE = 0.85  # of that, where memory belongs to several nodes
KERNEL_OF_RAM = 0.9
UNKNOWN_RAM_GB_S = 30.0  # two channels of DDR4, if nobody knows
FLOP_PER_DEVICE_BYTE = 35.0  # dense bf16 at half its peak: RTX 3090 35, 4090 80, 5090 60
DISK_OF_PEAK = 0.8
UNKNOWN_DISK_GB_S = 2.0
ALONE_OF_DISK = 0.6  # one record at a time against several
SYNC_S = 40e-6
STEP_S = 150e-6
CORE_GB_S = 14.0  # of records at one token
CORE_EXPERTS_GFLOP_S = {
    "portable": 2.0, "avx2": 130.0, "avxvnni": 160.0, "avx512bw": 160.0, "avx512vnni": 240.0,
    "amx": 300.0,
}  # fmt: skip
CORE_BACKBONE_GFLOP_S = {"portable": 2.0, "avx2": 50.0, "avxvnni": 50.0}
WIDE_BACKBONE_GFLOP_S = 80.0  # with AVX-512
UNKNOWN_CORES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """All rates as numbers: GB/s, GFLOP/s, seconds. `assumed`: those that nobody measured."""

    ram_gb_s: float
    experts_gb_s: float
    experts_gflop_s: float
    backbone_gb_s: float
    backbone_gflop_s: float
    link_gb_s: float
    device_gb_s: float
    device_gflop_s: float
    disk_gb_s: float
    disk_record_s: float
    sync_s: float
    step_s: float
    experts_gb_s_while_reading: float
    disk_gb_s_while_computing: float
    assumed: tuple[str, ...]


def speeds(
    hardware: Hardware, *, record_bytes: int, weights: str = "bf16", threads: int | None = None
) -> Speeds:
    """Complete the rates of a machine for records of so many bytes.

    Measured rates of int8 weights are used where `weights` is "int8"; fewer `threads` than cores
    lower what was assumed for all of them.
    """
    known = _known(hardware.rates, weights)
    values = dict(known)
    values.update({k: v for k, v in _host(hardware, known, threads).items() if k not in known})
    gpu = next(iter(in_order(hardware)), None)
    values.update({k: v for k, v in _device(gpu).items() if k not in known})
    if "device_gflop_s" not in values:
        values["device_gflop_s"] = values["device_gb_s"] * FLOP_PER_DEVICE_BYTE
    values.update({k: v for k, v in _disk(hardware, known, record_bytes).items() if k not in known})
    values.setdefault("experts_gb_s_while_reading", values["experts_gb_s"])
    values.setdefault("disk_gb_s_while_computing", values["disk_gb_s"])
    own = ("link_gb_s", "device_gb_s", "device_gflop_s", "sync_s") if gpu is None else ()
    assumed = tuple(name for name in values if name not in known and name not in own)
    return Speeds(**values, assumed=assumed)


def _known(rates: Rates, weights: str) -> dict[str, float]:
    """What was measured, by the names of Speeds."""
    names = {each.name for each in fields(Speeds)} - {"assumed"}
    found = {name: getattr(rates, name) for name in names}
    if weights == "int8":
        found["backbone_gb_s"] = rates.backbone_int8_gb_s
        found["backbone_gflop_s"] = rates.backbone_int8_gflop_s
    return {name: float(value) for name, value in found.items() if value is not None}


def _host(hardware: Hardware, known: dict[str, float], threads: int | None) -> dict[str, float]:
    cpu, isa = hardware.cpu, hardware.cpu.isa or "avx2"
    cores = min(threads or cpu.cores or UNKNOWN_CORES, cpu.cores or UNKNOWN_CORES)
    peak = hardware.ram.peak_gb_s
    nodes = NODES_SHARE if (cpu.nodes or 1) > 1 else 1.0
    ram = known.get("ram_gb_s", peak * RAM_OF_PEAK * nodes if peak else UNKNOWN_RAM_GB_S)
    kernel = min(ram * KERNEL_OF_RAM, cores * (CORE_GB_S if isa != "portable" else 0.5))
    return {
        "ram_gb_s": ram,
        "experts_gb_s": kernel,
        "backbone_gb_s": kernel,
        "experts_gflop_s": cores * CORE_EXPERTS_GFLOP_S.get(isa, CORE_EXPERTS_GFLOP_S["avx2"]),
        "backbone_gflop_s": cores * CORE_BACKBONE_GFLOP_S.get(isa, WIDE_BACKBONE_GFLOP_S),
        "step_s": STEP_S,
        "sync_s": SYNC_S,
    }


def _device(gpu: Gpu | None) -> dict[str, float]:
    return {"device_gb_s": memory_gb_s(gpu), "link_gb_s": link_gb_s(gpu)}


def _disk(hardware: Hardware, known: dict[str, float], record_bytes: int) -> dict[str, float]:
    peak = hardware.disk.peak_gb_s if hardware.disk else None
    rate = known.get("disk_gb_s", peak * DISK_OF_PEAK if peak else UNKNOWN_DISK_GB_S)
    return {"disk_gb_s": rate, "disk_record_s": record_bytes / (rate * ALONE_OF_DISK * 1e9)}
