"""How a group of 32 encoded activations lies in memory (numerics.py writes it).

    int8    32 codes | float32 scale | int32 8 * sum of codes                             40 B
    int16   32 high bytes | 32 low bytes | float32 scale | int32 8 * sum of 256 hi + lo   72 B
    bf16    32 float32 values                                                            128 B

A plane is 32 signed bytes; an int16 activation is 256 * first plane + second plane. In the biased
form each code is stored as code + 128, an unsigned byte, and the sum is not used.
"""

from dataclasses import dataclass
from typing import Literal

Name = Literal["int8", "int16", "bf16"]


@dataclass(frozen=True, slots=True)
class Mode:
    """One activation mode: where things are in an encoded group, in bytes."""

    name: Name
    group_bytes: int
    planes: int = 0  # of 32 bytes each, most significant first

    @property
    def scale_at(self) -> int:
        """Offset of the group's scale."""
        return 32 * self.planes

    @property
    def offset_at(self) -> int:
        """Offset of what the nibbles' bias of 8 adds to a dot product."""
        return 32 * self.planes + 4


INT8, INT16, BF16 = Mode("int8", 40, 1), Mode("int16", 72, 2), Mode("bf16", 128)
MODES = {mode.name: mode for mode in (INT8, INT16, BF16)}
