"""Which experts of a prompt go over the link to a device and which the CPU computes.

In a prompt few experts have many tokens and many have few. Sending a record costs the same whoever
wants it, computing it costs by the token:

    tokens    ▇▇▇▆▅▄▃▃▂▂▂▁▁▁▁▁▁▁          experts of one layer, the busiest first
              |-- streamed --|-- CPU --|
    link      [e0][e1][e2]...             a record each, one after another
    device    [resident][e0][e1]...       each once it is there and the one before is computed
    CPU       [rare][rare]...             at the same time

The device's line is a flow shop of two machines in which every job takes equally long on the first;
Johnson's rule (Naval Res. Logist. 1, 1954) then says that the longest on the second goes first:
the busiest. So the order is optimal for any set, and the set is the n busiest for the best of all
n, found by prefix sums. The scan lets uploads run ahead of the computation as far as they like; a
ring of records (ring.py) holds them back only where the device, not the link, is what is awaited.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]
F64 = NDArray[np.float64]
Tokens: TypeAlias = NDArray[np.int64] | F64  # how many want each expert, or how many are expected
GB = 1e9
LEAST_TOKENS = 16  # a shorter prompt is over before a stream has begun


@dataclass(frozen=True, slots=True)
class Costs:
    """What an expert costs either side: GB/s of 10^9 bytes, GFLOP/s with two for a multiply-add.

    Several devices count as one with the sum of their rates. A rate of 0 says that there is no such
    side; a rate may be infinite.
    """

    record_bytes: int
    token_flop: int  # of one expert and token
    link_gb_s: float  # host to device
    device_gb_s: float
    device_gflop_s: float
    cpu_gb_s: float
    cpu_gflop_s: float

    @property
    def upload_s(self) -> float:
        """Seconds of one record on the link; infinite if there is none."""
        return self.record_bytes / (self.link_gb_s * GB) if self.link_gb_s else np.inf

    def cpu_s(self, tokens: Tokens) -> F64:
        """Seconds of experts with so many tokens on the CPU. [experts] -> [experts]

        An expert is bound by its bytes while its tokens are few, then by its arithmetic.
        """
        return _longer(self, tokens, self.cpu_gb_s, self.cpu_gflop_s)

    def device_s(self, tokens: Tokens) -> F64:
        """The same on the device, once the records are there. [experts] -> [experts]"""
        return _longer(self, tokens, self.device_gb_s, self.device_gflop_s)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Every expert that has tokens, once, with the predicted finish of either side."""

    resident: Ids  # on the device already, ascending
    streamed: Ids  # in the order of their upload
    on_cpu: Ids  # the busiest first
    device_s: float  # from the start until the device has all its outputs
    cpu_s: float

    @property
    def seconds(self) -> float:
        """Predicted finish of the layer."""
        return max(self.device_s, self.cpu_s)


def split(
    tokens: Tokens,
    resident: Mask,
    costs: Costs,
    movable: Mask | None = None,
    slowdown: tuple[float, float] = (1.0, 1.0),
    busy_s: float = 0.0,
) -> Split:
    """The split of a layer with the earliest predicted finish.

    `tokens` [experts]: how many want each; `resident` [experts]: on the device, never uploaded;
    `movable` [experts]: may be streamed (None: all), others that are not resident are the CPU's.
    `slowdown`: what predictions for device and CPU are multiplied by (pace.py); `busy_s`: what the
    device has to compute beside experts.
    Of equally fast splits that with the fewest uploads.
    """
    used = tokens > 0
    there = np.flatnonzero(used & resident)
    rest = used & ~resident
    may = rest if movable is None else rest & movable
    fixed, queue = np.flatnonzero(rest & ~may), np.flatnonzero(may)
    queue = queue[np.argsort(-tokens[queue], kind="stable")]  # the busiest first
    device_s, cpu_s = costs.device_s(tokens), costs.cpu_s(tokens)  # [experts]
    first = busy_s + float(device_s[there].sum())
    device = _device_s(costs.upload_s, device_s[queue], first) * slowdown[0]
    cpu = _cpu_s(cpu_s[queue], float(cpu_s[fixed].sum())) * slowdown[1]
    count = int(np.maximum(device, cpu).argmin())
    return Split(
        there.astype(np.int32),
        queue[:count].astype(np.int32),
        np.concatenate([queue[count:], fixed]).astype(np.int32),
        float(device[count]),
        float(cpu[count]),
    )


def _device_s(upload_s: float, each: F64, first: float) -> F64:
    """Finish of the device if the first n of the queue are streamed. [n = 0 ... len(each)]

    `each`: seconds of the queue once it is there; `first`: of what needs no upload. The last to be
    computed waits for some job j's upload and for all computation from j on: max over j of (j + 1)
    uploads + device seconds of j ... n - 1.
    """
    total = np.zeros(len(each) + 1)  # [n]: of the first n
    each.cumsum(out=total[1:])
    idle = np.empty(len(each) + 1)
    idle[0] = first
    idle[1:] = np.arange(1, len(each) + 1) * upload_s - total[:-1]
    np.maximum.accumulate(idle, out=idle)
    idle += total
    return idle


def _cpu_s(each: F64, fixed: float) -> F64:
    """Finish of the CPU if the first n of the queue are streamed. [n = 0 ... len(each)]"""
    finish = np.empty(len(each) + 1)
    finish[-1] = 0.0
    finish[:-1] = each[::-1].cumsum()[::-1]
    finish += fixed
    return finish


def _longer(costs: Costs, tokens: Tokens, gb_s: float, gflop_s: float) -> F64:
    """Seconds for bytes or arithmetic, whichever take longer."""
    if not (gb_s and gflop_s):
        return np.full(tokens.shape, np.inf)
    byte_s = costs.record_bytes / (gb_s * GB)
    return np.maximum(byte_s, tokens * (costs.token_flop / (gflop_s * GB)))
