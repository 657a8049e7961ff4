"""Where an expert's record lies: whole, or by rows on the NUMA nodes that compute them.

    one node      [n_experts, record_bytes]
    node k of N   [n_experts, bytes of its rows]      gate and up blocks of its groups of 32 rows,
                                                      then its down blocks

Each node computes a contiguous part of the rows of every expert from its own memory, so that all
memory channels work on every token, whichever experts it picks. The parts add up to the record of
record.py; how a row is computed does not depend on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybrid.cpu_experts import arena
from hybrid.cpu_experts.cores import Share
from hybrid.cpu_experts.record import ROWS, RecordShape

GATE_BLOCKS = 4  # gate, up, gate, up: the row blocks of 32 intermediate rows


@dataclass(frozen=True, slots=True)
class Shard:
    """One node's rows of `n_experts` experts."""

    records: NDArray[np.uint8]  # [n_experts, nbytes], rows perhaps longer than the record
    gates: range  # groups of 32 intermediate rows
    downs: range  # row blocks of the output

    def down_at(self, shape: RecordShape) -> int:
        """Offset of the first down block in a record of this shard."""
        return len(self.gates) * GATE_BLOCKS * shape.gate_block_bytes


def whole(shape: RecordShape, records: NDArray[np.uint8]) -> Shard:
    """The shard that holds all rows, in `records` [n_experts, record_bytes]."""
    return Shard(records, range(shape.intermediate // 32), range(shape.hidden // ROWS))


def allocate(
    shape: RecordShape, n_experts: int, shares: Sequence[Share], align: int = 1
) -> tuple[Shard, ...]:
    """Zeroed memory for the records of `n_experts` experts, a part of their rows on each node.

    A model with fewer groups of rows than there are nodes stays whole. Records start `align` bytes,
    or a multiple, apart.
    """
    empty = whole(shape, np.empty((0, 0), np.uint8))
    nodes = len(shares) if len(shares) <= min(len(empty.gates), len(empty.downs)) else 1
    shards = []
    for node, share in zip(range(nodes), shares, strict=False):
        gates, downs = _part(empty.gates, node, nodes), _part(empty.downs, node, nodes)
        nbytes = len(gates) * GATE_BLOCKS * shape.gate_block_bytes
        nbytes += len(downs) * shape.down_block_bytes
        nbytes += -nbytes % align
        memory_node = share.memory_node if nodes > 1 else None
        memory = arena.allocate(n_experts * nbytes, node=memory_node)
        shards.append(Shard(memory.reshape(n_experts, nbytes), gates, downs))
    return tuple(shards)


def _part(rows: range, node: int, nodes: int) -> range:
    return range(len(rows) * node // nodes, len(rows) * (node + 1) // nodes)
