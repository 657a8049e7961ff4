"""The machine: what it consists of and how fast its parts are, measured or promised.

`Hardware` is a description that other machines have too, as JSON; `probe` writes that of this one.
Importing this compiles nothing and imports neither numba nor torch.
"""

from hybrid.hardware.description import Cpu, Disk, Gpu, Hardware, Ram, Rates
from hybrid.hardware.model_sizes import K25, ModelSizes
from hybrid.hardware.probing import describe, probe
from hybrid.hardware.roots import HERE, Roots

__all__ = [
    "HERE",
    "K25",
    "Cpu",
    "Disk",
    "Gpu",
    "Hardware",
    "ModelSizes",
    "Ram",
    "Rates",
    "Roots",
    "describe",
    "probe",
]
