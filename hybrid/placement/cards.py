"""The GPUs of a machine: which one has the backbone, what is free on each, how fast they are.

The backbone lies on the first, the one with most room; experts lie on all, and what a prompt
streams goes over all links at once. Rates of one card that were measured are those of the first;
the others are taken to differ from it as their makers' figures do.
"""

from dataclasses import dataclass

from hybrid.hardware import Gpu, Hardware

DEVICE_OF_PEAK = 0.8
UNKNOWN_DEVICE_GB_S = 300.0
LINK_OF_PEAK = 0.8
LANE_GB_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.97, 5: 3.94, 6: 7.56}  # of PCIe, by generation


@dataclass(frozen=True, slots=True)
class Together:
    """How many times as fast as the first card those are that have experts."""

    memory: float = 1.0
    link: float = 1.0


def in_order(hardware: Hardware) -> tuple[Gpu, ...]:
    """The first card, then the others as they are numbered."""
    cards = hardware.gpus
    if not cards:
        return ()
    first = max(range(len(cards)), key=lambda index: free_vram(cards[index]))
    return (cards[first], *cards[:first], *cards[first + 1 :])


def free_vram(gpu: Gpu) -> int:
    """Bytes that a process may take; where unknown, all but what a driver keeps."""
    if gpu.free_bytes is not None:
        return gpu.free_bytes
    return max(0, (gpu.vram_bytes or 0) - (1 << 30))


def memory_gb_s(gpu: Gpu | None) -> float:
    """What a card's memory gives, by its maker's figure."""
    return gpu.peak_gb_s * DEVICE_OF_PEAK if gpu and gpu.peak_gb_s else UNKNOWN_DEVICE_GB_S


def link_gb_s(gpu: Gpu | None) -> float:
    """What pinned copies reach on a card's link."""
    generation, width = (gpu.pcie_gen, gpu.pcie_width) if gpu else (None, None)
    lane = LANE_GB_S[min(generation or 3, max(LANE_GB_S))]
    return lane * (width or 16) * LINK_OF_PEAK


def together(cards: tuple[Gpu, ...]) -> Together:
    """Rates of all cards over those of the first."""
    if not cards:
        return Together()
    first = cards[0]
    return Together(
        sum(map(memory_gb_s, cards)) / memory_gb_s(first),
        sum(map(link_gb_s, cards)) / link_gb_s(first),
    )
