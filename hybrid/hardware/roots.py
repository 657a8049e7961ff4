"""Where the kernel tells about a machine. Tests give the trees of other machines."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Roots:
    """The three file systems that are asked."""

    system: Path = Path("/sys")
    processes: Path = Path("/proc")
    devices: Path = Path("/dev")


HERE = Roots()
