"""The expert record: all routed weights of one expert in one block, the same bytes on every tier.

    record      gate 0 | up 0 | gate 1 | up 1 | ... gate I/16-1 | up I/16-1 | down 0 ... down H/16-1
    row block   16 output rows over all K inputs: K/32 groups
    group       16 rows x 32 inputs = 4 lines of 64 B, then the 16 bf16 scales: 288 B
    line j      16 lanes of 4 bytes, lane r = output row r of the block
                  low  nibbles of the 4 bytes = inputs 8j   ... 8j+3
                  high nibbles of the 4 bytes = inputs 8j+4 ... 8j+7

Nibbles stay offset-8 as in the checkpoint (weight = (nibble - 8) * scale). Lane = row means that a
kernel needs no shuffle and no horizontal sum: it broadcasts 4 activation bytes and multiplies.
gate and up alternate so that one pass over 16 intermediate rows yields silu(gate) * up. Scales lie
behind their nibbles so that a record is read from its first byte to its last as one stream: memory
answers two streams a core more slowly than one.
K2.5 (hidden 7168, intermediate 2048): 2 * 128 * 64,512 + 448 * 18,432 = 24,772,608 B.
"""

from dataclasses import dataclass

from hybrid.config import TextConfig
from hybrid.errors import ConfigError

GROUP = 32  # inputs that share one scale
ROWS = 16  # output rows of a row block
LINE_BYTES = 64
GROUP_BYTES = ROWS * GROUP // 2
SCALE_BYTES = ROWS * 2  # one group's bf16 scales
STRIDE = GROUP_BYTES + SCALE_BYTES  # from one group to the next
MAX_DIMENSION = 1 << 20  # far above any model; keeps every byte count inside int64


@dataclass(frozen=True, slots=True)
class RecordShape:
    """Sizes of one expert's record; `hidden` is in and out, `intermediate` lies between."""

    hidden: int
    intermediate: int

    @classmethod
    def of(cls, text: TextConfig) -> "RecordShape":
        """The records of a model; ConfigError for sizes that are no multiple of a group."""
        return cls(text.hidden_size, text.moe_intermediate_size)

    def __post_init__(self) -> None:
        for name, value in (("hidden", self.hidden), ("intermediate", self.intermediate)):
            if not 0 < value <= MAX_DIMENSION or value % GROUP:
                raise ConfigError(
                    f"{name} is {value}; routed experts need a positive multiple of {GROUP} "
                    f"up to {MAX_DIMENSION}"
                )

    @property
    def gate_block_bytes(self) -> int:
        """One row block of gate or of up."""
        return row_block_bytes(self.hidden)

    @property
    def down_block_bytes(self) -> int:
        """One row block of down."""
        return row_block_bytes(self.intermediate)

    @property
    def down_offset(self) -> int:
        """Where the down blocks start."""
        return 2 * (self.intermediate // ROWS) * self.gate_block_bytes

    @property
    def nbytes(self) -> int:
        """The whole record."""
        return self.down_offset + (self.hidden // ROWS) * self.down_block_bytes


def row_block_bytes(inputs: int) -> int:
    """Bytes of 16 output rows over `inputs` columns, scales included."""
    return inputs // GROUP * STRIDE
