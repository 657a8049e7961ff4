"""The device's expert kernels against the CPU's: the same bits, or the card must not be used.

Records are random bytes, -8 among the nibbles; tokens hold zeros, subnormal numbers, infinities
and NaN; some slots are skipped and some experts asked for twice. Numbers of tokens lie on both
sides of where the launches change their form.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.record import SCALE_BYTES, STRIDE, RecordShape
from hybrid.doctor.check import Check, bad, good
from hybrid.gpu_experts import GpuExperts, combine

REPORT = "do not use this card for experts (--vram-budget 0), and report card, driver and torch"
PER_TOKEN = 8
EXPERTS = 12
MODES = ("int8", "int16", "bf16")


@dataclass(frozen=True, slots=True)
class Case:
    """A size of records, and numbers of tokens."""

    name: str
    shape: RecordShape
    tokens: tuple[int, ...]


SMALL = Case("96 x 160", RecordShape(96, 160), (1, 4, 5, 33, 70))
TRUE = Case("K2.5's size", RecordShape(7168, 2048), (1, 4, 70))


def check_experts(device: torch.device, mode: str, case: Case) -> Check:
    """Outputs and sums of one activation at one size."""
    name = f"experts {mode}, {case.name}"
    records = random_records(case.shape)
    cpu = ExpertLayer(
        EXPERTS, case.shape.hidden, case.shape.intermediate, activation=mode, records=records
    )
    cpu.where[:] = np.arange(EXPERTS)
    device_experts = GpuExperts(case.shape, torch.from_numpy(records).to(device), mode)
    compared = 0
    for tokens in case.tokens:
        x, ids, weights = request(case.shape.hidden, tokens)
        want = cpu.forward(x, ids, weights)
        rows = torch.zeros(ids.size, case.shape.hidden, device=device)
        there, ids_there = torch.from_numpy(x).to(device), torch.from_numpy(ids).to(device)
        device_experts.outputs(there, ids_there, rows)
        got = combine(rows, ids_there, torch.from_numpy(weights).to(device)).cpu().numpy()
        wrong = int(np.count_nonzero(~same(got, want)))
        if wrong:
            found = f"{wrong} of {want.size} numbers of {tokens} tokens differ from the CPU's"
            return bad(name, found, REPORT)
        compared += want.size
    return good(name, f"the CPU's bits in {compared:,} numbers")


def same(got: NDArray[np.float32], want: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where two arrays have the same bits, or both have some NaN."""
    equal = got.view(np.uint32) == want.view(np.uint32)
    return np.asarray(equal | (np.isnan(got) & np.isnan(want)), np.bool_)


@cache
def random_records(shape: RecordShape) -> NDArray[np.uint8]:
    """EXPERTS records of random nibbles and of scales that keep outputs of the size of inputs."""
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 256, (EXPERTS, shape.nbytes // STRIDE, STRIDE), dtype=np.uint8)
    spread = 4.6 * np.sqrt(shape.hidden)  # of 16 equally likely nibbles, over so many inputs
    scales = rng.uniform(0.5, 2, (*groups.shape[:2], SCALE_BYTES // 2)) / spread
    bits = (scales.astype(np.float32).view(np.uint32) >> 16).astype("<u2")
    groups[:, :, -SCALE_BYTES:] = bits.view(np.uint8).reshape(*groups.shape[:2], SCALE_BYTES)
    return np.ascontiguousarray(groups.reshape(EXPERTS, shape.nbytes))


def request(
    hidden: int, tokens: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """x [tokens, hidden], ids and weights [tokens, PER_TOKEN]; the last tokens are no ordinary."""
    rng = np.random.default_rng(tokens)
    x = rng.standard_normal((tokens, hidden)).astype(np.float32)
    if tokens >= 5:
        x[-1, :32], x[-2, 3], x[-3, 40], x[-4] = 0, np.inf, np.nan, np.float32(3e-42)
    ids = np.stack([rng.permutation(EXPERTS)[:PER_TOKEN] for _ in range(tokens)]).astype(np.int32)
    ids[rng.random(ids.shape) < 0.1] = -1
    ids[0, :2] = ids[0, 2]
    weights = rng.uniform(0.1, 1, ids.shape).astype(np.float32)
    return x, ids, weights
