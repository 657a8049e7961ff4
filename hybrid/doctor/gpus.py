"""GPU: driver, torch and the card must fit together, and the card its slot."""

from collections.abc import Sequence
from dataclasses import dataclass

from hybrid.doctor.check import Check, bad, good, none
from hybrid.hardware.devices import Slot

NO_GPU = "no NVIDIA device: the CPU computes all"
REINSTALL = "pip install --force-reinstall 'torch~=2.13.0'"  # its wheels for Linux are CUDA builds


@dataclass(frozen=True, slots=True)
class Torch:
    """What torch says of itself, and of the devices that it sees."""

    version: str
    cuda: str | None  # that it was built for
    available: bool
    architectures: tuple[str, ...] = ()  # "sm_90": what it has code for
    capabilities: tuple[tuple[int, int], ...] = ()  # of the devices


def ask_torch() -> Torch | None:
    """None where torch cannot be imported."""
    try:
        import torch
    except (ImportError, OSError):
        return None
    available = torch.cuda.is_available()
    count = torch.cuda.device_count() if available else 0
    return Torch(
        version=torch.__version__,
        cuda=torch.version.cuda,
        available=available,
        architectures=tuple(torch.cuda.get_arch_list()) if available else (),
        capabilities=tuple(torch.cuda.get_device_capability(index) for index in range(count)),
    )


def driver(slots: Sequence[Slot], loaded: bool, version: str | None) -> Check:
    """A card without a driver is invisible to everything above."""
    if loaded:
        return good("GPU driver", version or "loaded")
    if not slots:
        return none("GPU driver", NO_GPU)
    return bad(
        "GPU driver",
        f"{len(slots)} NVIDIA device(s), but no driver is loaded",
        "install it (Ubuntu: sudo ubuntu-drivers install) and restart; "
        "in a container start it with --gpus all",
    )


def torch_match(torch: Torch | None, loaded: bool, version: str | None) -> Check:
    """torch must be a CUDA build that the driver can run, with code for the card."""
    name = "torch and CUDA"
    if not loaded:
        return none(name, NO_GPU)
    if torch is None:
        return bad(name, "torch cannot be imported", REINSTALL)
    if torch.cuda is None:
        return bad(name, f"torch {torch.version} is a CPU build", REINSTALL)
    if not torch.available:
        return bad(
            name,
            f"torch {torch.version} for CUDA {torch.cuda} sees no device, driver {version}",
            f"update the driver to one for CUDA {torch.cuda}, then try nvidia-smi",
        )
    missing = [each for each in torch.capabilities if not _has_code(torch, each)]
    if missing:
        major, minor = missing[0]
        return bad(name, f"torch {torch.version} has no code for sm_{major}{minor}", REINSTALL)
    return good(name, f"torch {torch.version}, CUDA {torch.cuda}, driver {version}")


def _has_code(torch: Torch, capability: tuple[int, int]) -> bool:
    """Code for a generation runs on its later members; "compute_" code on all later ones."""
    for architecture in torch.architectures:
        kind, _, digits = architecture.partition("_")
        digits = digits.rstrip("af")
        if not digits.isdigit():
            continue
        major, minor = int(digits[:-1]), int(digits[-1])
        if kind == "compute" and (major, minor) <= capability:
            return True
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return True
    return False


def links(slots: Sequence[Slot]) -> Check:
    """A card with half its lanes gets half its bytes."""
    if not slots:
        return none("PCIe link", NO_GPU)
    known = [slot for slot in slots if slot.width and slot.full_width]
    if not known:
        return none("PCIe link", "this kernel does not say")
    found = ", ".join(
        f"generation {slot.generation or 'unknown'} x{slot.width} of x{slot.full_width}"
        for slot in known
    )
    if all(slot.width == slot.full_width for slot in known):
        return good("PCIe link", found)
    return bad("PCIe link", found, "put the card into a slot with all its lanes, and reseat it")
