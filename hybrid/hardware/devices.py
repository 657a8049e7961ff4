"""GPUs: what the kernel shows of them without any library, and what torch adds where it can.

    /proc/driver/nvidia/version                       driver
    /proc/driver/nvidia/gpus/0000:01:00.0/information Model: ..., Bus Location: ...
    /sys/bus/pci/devices/0000:01:00.0/                max_link_speed, current_link_width

torch is imported only where a driver's node exists (loader.py does the same), because importing it
takes seconds. A link idles at a lower speed, but not at a lower width: so the generation is the
best that both ends can do, and the width is that of now.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hybrid.hardware import kernel_text
from hybrid.hardware.description import MAX_GPUS, Gpu
from hybrid.hardware.roots import HERE, Roots

NODES = ("nvidiactl", "nvhost-ctrl", "dxg")  # driver, Jetson, Windows' Linux
NVIDIA, DISPLAY = "0x10de", "0x03"  # PCI vendor, class
MOST_DEVICES = 4096  # of the PCI bus that are looked at
GENERATIONS = {"2.5": 1, "5": 2, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6, "128.0": 7}
_DRIVER = re.compile(r"Module.*?\s([0-9]{2,4}(?:\.[0-9]{1,4}){1,3})(?:\s|$)")
_BUS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


@dataclass(frozen=True, slots=True)
class Slot:
    """A device on the PCI bus and how it is connected."""

    bus: str  # "0000:01:00.0"
    generation: int | None
    width: int | None
    full_width: int | None  # lanes that the device itself has


def read_gpus(roots: Roots = HERE) -> tuple[Gpu, ...]:
    """All devices; those that torch knows with their memory, in torch's order."""
    slots = {slot.bus: slot for slot in nvidia_slots(roots.system)}
    driver = driver_version(roots)
    if roots == HERE and has_driver(roots):
        known = tuple(_described(facts, slots, driver) for facts in _from_torch())
        if known:
            return known
    return tuple(
        _linked(Gpu(name=_model(roots, bus), driver=driver), slot) for bus, slot in slots.items()
    )


def has_driver(roots: Roots = HERE) -> bool:
    """Whether a driver's node exists: without one, torch need not be asked."""
    return any((roots.devices / node).exists() for node in NODES)


def driver_version(roots: Roots = HERE) -> str | None:
    """As "570.86.10", where the driver is loaded."""
    found = _DRIVER.search(kernel_text.text(roots.processes / "driver/nvidia/version"))
    return found[1] if found else None


def nvidia_slots(system: Path) -> list[Slot]:
    """NVIDIA's display devices on the PCI bus, driver or not, in the order of the bus."""
    folder = system / "bus/pci/devices"
    return [_slot(folder / bus) for bus in _buses(folder) if _is_display(folder / bus)][:MAX_GPUS]


def _buses(folder: Path) -> list[str]:
    try:
        names = sorted(path.name for path in islice(folder.iterdir(), MOST_DEVICES))
    except OSError:
        return []
    return [name for name in names if _BUS.fullmatch(name)]


def _is_display(device: Path) -> bool:
    kind = kernel_text.text(device / "class")
    return kernel_text.text(device / "vendor") == NVIDIA and kind.startswith(DISPLAY)


def _slot(device: Path) -> Slot:
    try:
        port = device.resolve().parent  # the bridge that it is wired to
    except (OSError, RuntimeError):
        port = device
    ends = [_generation(each / "max_link_speed") for each in (device, port)]
    width = kernel_text.number(device / "current_link_width")
    full = kernel_text.number(device / "max_link_width")
    best = min((end for end in ends if end is not None), default=None)
    return Slot(device.name, best, _lanes(width), _lanes(full))


def _generation(path: Path) -> int | None:
    """Of "32.0 GT/s PCIe"."""
    return GENERATIONS.get(kernel_text.text(path).partition(" ")[0])


def _lanes(width: int | None) -> int | None:
    return width if width and width <= 64 else None


def _model(roots: Roots, bus: str) -> str | None:
    told = kernel_text.text(roots.processes / f"driver/nvidia/gpus/{bus}/information")
    return kernel_text.name(kernel_text.field(told, "Model"))


def _linked(gpu: Gpu, slot: Slot | None) -> Gpu:
    if slot is None:
        return gpu
    return replace(gpu, pcie_gen=slot.generation, pcie_width=slot.width)


def _described(facts: dict[str, Any], slots: dict[str, Slot], driver: str | None) -> Gpu:
    """From what torch says of one device; its memory moves two words a clock."""
    clock_khz, bits = facts["memory_clock_rate"], facts["memory_bus_width"]
    peak = round(2 * clock_khz * 1e3 * bits / 8 / 1e9, 1) if clock_khz and bits else None
    gpu = Gpu(
        name=kernel_text.name(facts["name"]),
        vram_bytes=facts["total"],
        free_bytes=facts["free"],
        capability=facts["capability"],
        peak_gb_s=peak,
        driver=driver,
    )
    return _linked(gpu, slots.get(facts["bus"]))


def _from_torch() -> Iterator[dict[str, Any]]:
    """What torch says of every CUDA device; nothing where it cannot be asked."""
    try:
        import torch
    except (ImportError, OSError):  # OSError: a library of it is missing
        return
    if not torch.cuda.is_available():
        return
    for index in range(min(torch.cuda.device_count(), MAX_GPUS)):
        properties = torch.cuda.get_device_properties(index)
        asked = {
            key: getattr(properties, key, None)
            for key in ("memory_clock_rate", "memory_bus_width", "pci_domain_id", "pci_bus_id",
                        "pci_device_id")
        }  # fmt: skip
        try:
            free = int(torch.cuda.mem_get_info(index)[0])
        except RuntimeError:  # in exclusive use by another process
            free = None
        yield asked | {
            "name": properties.name,
            "total": int(properties.total_memory),
            "free": free,
            "capability": f"{properties.major}.{properties.minor}",
            "bus": bus_name(asked["pci_domain_id"], asked["pci_bus_id"], asked["pci_device_id"]),
        }


def bus_name(domain: int | None, bus: int | None, device: int | None) -> str:
    """As the kernel spells it: "0000:01:00.0"."""
    return f"{domain or 0:04x}:{bus or 0:02x}:{device or 0:02x}.0"
