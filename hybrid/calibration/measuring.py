"""Measures the machine as a model of certain sizes will use it, in some seconds.

    memory taken -> rounds of (plain read, experts, backbone in both forms), one after another, so
    that noise hits all alike -> medians -> disk, alone and beside the experts -> kept on disk

Nothing is written but the rates, beside the kernels; nothing is read from a disk but files of the
model that are there.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybrid.calibration.backbone_rates import BackboneRates, backbone_rates
from hybrid.calibration.disk_rates import LONGEST_S, DiskRates
from hybrid.calibration.expert_rates import ExpertRates
from hybrid.calibration.plain_read import STREAMS, Team
from hybrid.calibration.step_rate import step_s
from hybrid.cpu_dense.kernels import warm_up as warm_up_backbone
from hybrid.cpu_experts import dispatch
from hybrid.cpu_experts.cores import Seat, shares
from hybrid.cpu_experts.topology import read_topology
from hybrid.errors import CheckpointError
from hybrid.hardware.description import Rates, rates_from_json
from hybrid.hardware.devices import has_driver
from hybrid.hardware.kept_rates import RatesOf, asked, keep
from hybrid.hardware.model_sizes import K25, ModelSizes
from hybrid.hardware.processor import read_cpu
from hybrid.memory import free_host_bytes

ROUNDS, PROMPT_ROUNDS = 7, 3
MEASURED = {"measured": True}
Sink = Callable[[str], None]  # is told what is being measured
Sample = tuple[int, float]  # bytes or operations, and seconds


def _quietly(_: str) -> None:
    pass


def calibrate(
    sizes: ModelSizes = K25,
    *,
    threads: int | None = None,
    isa: str | None = None,
    activation: str = "auto",
    model_dir: Path | None = None,
    sink: Sink = _quietly,
) -> Rates:
    """Measure, keep and return the rates; what cannot be measured here is None.

    Takes at most a quarter of the free RAM. Raises PlacementError where that says too little,
    ConfigError and KernelError as loading does.
    """
    sink("kernels")
    what = asked(threads, isa, activation, sizes)
    dispatch.warm_up(what.isa, what.activation)
    warm_up_backbone(lambda _: None)
    experts, found = _processor(what, sink)
    if model_dir is not None:
        sink("disk")
        found |= _disk(experts, model_dir)
    del experts
    sink("hand-offs")
    with suppress(OSError):  # no temporary directory
        found["step_s"] = step_s(what)
    if has_driver():
        sink("GPU")
        found |= _device()
    rates = rates_from_json(
        {key: _rounded(each) for key, each in found.items() if each > 0} | MEASURED
    )
    keep(rates, what, model_dir)
    return rates


def _processor(what: RatesOf, sink: Sink) -> tuple[ExpertRates, dict[str, float]]:
    """Everything between RAM and the cores; the layer is needed again beside the disk."""
    free, cache = free_host_bytes(), read_cpu().l3_bytes or 0
    sink("memory")
    experts = ExpertRates(what, free, cache)
    backbone = backbone_rates(what, free, cache)
    samples = _rounds(experts, backbone, sink)
    found = {name: _rate(each) for name, each in samples.items()}
    found["ram_gb_s"] = max(found["ram_gb_s"], found.pop("streams_gb_s"))
    seats = all_seats(what.threads)
    nodes = len(experts.memories)
    found["node_ram_gb_s"] = (
        min(node_gb_s(experts.memories[node], node, seats) for node in range(nodes))
        if nodes > 1
        else found["ram_gb_s"]
    )
    return experts, found


def all_seats(threads: int) -> list[Seat]:
    """Where the threads of a model sit."""
    spread = shares(read_topology(), threads)
    return [Seat(node, core) for node, share in enumerate(spread) for core in share.cores]


def _rounds(
    experts: ExpertRates, backbone: dict[str, BackboneRates], sink: Sink
) -> dict[str, list[Sample]]:
    team, memories = Team(all_seats(experts.layer.threads)), experts.memories
    quick: dict[str, Callable[[], Sample]] = {
        "ram_gb_s": lambda: team.read_nodes(memories),
        "streams_gb_s": lambda: team.read_nodes(memories, STREAMS),
        "experts_gb_s": experts.tokens,
        "backbone_gb_s": backbone["bf16"].token,
        "backbone_int8_gb_s": backbone["int8"].token,
    }
    slow: dict[str, Callable[[], Sample]] = {
        "experts_gflop_s": experts.prompt,
        "backbone_gflop_s": backbone["bf16"].prompt,
        "backbone_int8_gflop_s": backbone["int8"].prompt,
    }
    try:
        sink("one token")
        samples = interleaved(quick, ROUNDS)
        sink("a prompt")
        return samples | interleaved(slow, PROMPT_ROUNDS)
    finally:
        team.close()


def interleaved(measures: dict[str, Callable[[], Sample]], rounds: int) -> dict[str, list[Sample]]:
    """Samples of each, taken in turns; a first turn that nobody counts wakes everything up."""
    turns = [{name: measure() for name, measure in measures.items()} for _ in range(rounds + 1)]
    return {name: [turn[name] for turn in turns[1:]] for name in measures}


def node_gb_s(memory: NDArray[np.uint8], node: int, seats: Iterable[Seat]) -> float:
    """A node's threads on its own memory: the better of the two ways to read it."""
    team = Team([Seat(0, seat.core) for seat in seats if seat.node == node])
    ways: dict[str, Callable[[], Sample]] = {
        "plain": lambda: team.read_nodes([memory]),
        "streams": lambda: team.read_nodes([memory], STREAMS),
    }
    try:
        return max(map(_rate, interleaved(ways, ROUNDS).values()))
    finally:
        team.close()


def _disk(experts: ExpertRates, model_dir: Path) -> dict[str, float]:
    """The disk by itself, then beside the experts; nothing where no file says enough."""
    disk = DiskRates.of(model_dir, experts.layer.record_bytes)
    if disk is None:
        return {}
    done = [0, 0.0]

    def compute() -> None:
        nbytes, seconds = experts.tokens()
        done[0] += nbytes
        done[1] += seconds

    try:
        return {
            "disk_record_s": disk.alone(),
            "disk_gb_s": disk.several(LONGEST_S, lambda: time.sleep(0.01)),
            "disk_gb_s_while_computing": disk.several(LONGEST_S, compute),
            "experts_gb_s_while_reading": done[0] / 1e9 / done[1],
        }
    except CheckpointError:  # a disk that fails has no rate; loading says what is wrong
        return {}
    finally:
        disk.close()


def _device() -> dict[str, float]:
    try:
        import torch

        if torch.cuda.is_available():
            from hybrid.calibration.device_rates import device_rates

            return device_rates()
    except (ImportError, OSError, RuntimeError):  # doctor says what is wrong with it
        pass
    return {}


def _rate(samples: list[Sample]) -> float:
    """Median of 1e9 bytes or operations a second."""
    return statistics.median(amount / 1e9 / seconds for amount, seconds in samples)


def _rounded(value: float) -> float:
    """Four digits: more would claim too much."""
    return float(f"{value:.4g}")
