"""The first CUDA device: link, memory, arithmetic, hand-off.

Timed with torch's events around work that is long enough to hide a launch. No machine with a GPU
has run this yet: its numbers are to be looked at before they are believed.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

COPY_BYTES = 256 << 20
SIDE = 4096  # of square matrices
ROUNDS = 7


def device_rates() -> dict[str, float]:
    """Rates of device 0 by the names of Rates. Raises RuntimeError as torch does."""
    import torch

    device = torch.device("cuda", 0)
    host = torch.ones(COPY_BYTES, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(host, device=device)
    large = there.view(torch.int64)
    factor = torch.ones((SIDE, SIDE), dtype=torch.bfloat16, device=device)
    small = torch.ones(8, device=device)
    return {
        "link_gb_s": COPY_BYTES / 1e9 / _event_s(lambda: there.copy_(host, non_blocking=True)),
        "device_gb_s": COPY_BYTES / 1e9 / _event_s(large.sum),
        "device_gflop_s": 2 * SIDE**3 / 1e9 / _event_s(lambda: factor @ factor),
        "sync_s": _median(lambda: _clock_s(lambda: small.cpu())),
    }


def _event_s(work: Callable[[], Any]) -> float:
    """Median seconds on the device."""
    return _median(lambda: _one_event_s(work))


def _one_event_s(work: Callable[[], Any]) -> float:
    import torch

    event: Any = torch.cuda.Event  # carries no types
    began, ended = event(enable_timing=True), event(enable_timing=True)
    began.record()
    work()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1e3


def _clock_s(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _median(sample: Callable[[], float]) -> float:
    sample()  # the first one loads what it needs
    return statistics.median(sample() for _ in range(ROUNDS))
