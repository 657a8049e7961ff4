"""A machine in small on this one: portable kernels, a device of threads, a link that sleeps.

The portable kernels are as far from the device's batched arithmetic as a CPU is from a GPU, a few
times; the link is made so slow that a record takes as long as some tokens on the CPU.
"""

import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from hybrid.accelerator.host import HostAccelerator
from hybrid.backbone import Routing
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.layer_map import LayerMap
from hybrid.cache.policy import POLICIES
from hybrid.cache.ring import Ring
from hybrid.cache.split import Costs, Split, split
from hybrid.cache.streaming import Streamer
from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.cores import Share
from hybrid.cpu_experts.record import GROUP_BYTES, STRIDE, RecordShape

SHAPE = RecordShape(512, 256)
EXPERTS, PER_TOKEN, TOKENS = 64, 8, 1024
LINK_GB_S = 0.01  # 22 ms a record
WARM_UP = 6  # layers until the pace is found
# of one core each on a 2.5 GHz server, roughly; pace.py finds the rest
COSTS = Costs(
    record_bytes=SHAPE.nbytes, token_flop=2 * 3 * SHAPE.hidden * SHAPE.intermediate,
    link_gb_s=LINK_GB_S, device_gb_s=0.02, device_gflop_s=3.5, cpu_gb_s=1.0, cpu_gflop_s=4.0,
)  # fmt: skip


def _records(count: int) -> NDArray[np.uint8]:
    """Random nibbles, scales near 0.01. [count, nbytes]"""
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (count, SHAPE.nbytes // STRIDE, STRIDE), np.uint8)
    scales = rng.uniform(0.005, 0.02, (*records.shape[:2], 16)).astype(np.float32)
    bits = (scales.view(np.uint32) >> 16).astype(np.uint16)
    records[:, :, GROUP_BYTES:] = bits.view(np.uint8).reshape(*records.shape[:2], -1)
    return records.reshape(count, -1)


def _prompt() -> Routing:
    """Tokens that like some experts better than others."""
    rng = np.random.default_rng(1)
    liked = 1 / np.arange(1, EXPERTS + 1) ** 0.8
    liked /= liked.sum()
    picked = [rng.choice(EXPERTS, PER_TOKEN, replace=False, p=liked) for _ in range(TOKENS)]
    ids = np.stack(picked).astype(np.int32)
    x = rng.standard_normal((TOKENS, SHAPE.hidden)).astype(np.float32)
    return Routing(x, ids, np.ones(ids.shape, np.float32))


class Miniature:
    """One layer, one prompt, three ways."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._routing = _prompt()
        self._map = LayerMap(0, EXPERTS, POLICIES["decayed-lfu"])
        slots = HostSlots(SHAPE, EXPERTS, (Share(None, (None,)),))
        for expert, record in enumerate(_records(EXPERTS)):
            self._map.ram[expert] = expert
            slots.fill(expert, record)
        self._map.ram_slots = EXPERTS
        self._kernel = ExpertLayer(
            EXPERTS, SHAPE.hidden, SHAPE.intermediate, "portable", 1, "int8",
            shards=slots.shards, where=self._map.ram,
        )  # fmt: skip
        self._unit = HostAccelerator(link_gb_s=LINK_GB_S)
        ring = Ring(self._unit, slots, "int8", 16)
        self._way = "split"
        self._stream = Streamer([ring], COSTS, self._choose, ahead=False)
        self._want: NDArray[np.float32] | None = None

    def run(self, way: str) -> float:
        """Seconds of the layer; "cpu", "stream" or "split". Raises ValueError for other bits."""
        self._way = way
        own, routing = self._map, self._routing
        rows = torch.zeros((routing.expert_ids.size, SHAPE.hidden))
        everybody = np.unique(routing.expert_ids)
        began = time.perf_counter()
        taken = self._stream.begin(own, routing, everybody, rows)
        rest = np.where(np.isin(routing.expert_ids, taken), -1, routing.expert_ids)
        self._kernel.outputs(routing.hidden, rest.astype(np.int32), rows.numpy())
        self._stream.collect()
        seconds = time.perf_counter() - began
        if self._want is None:
            self._want = rows.numpy().copy()
        elif not np.array_equal(self._want, rows.numpy()):
            raise ValueError(f"{way}: other bits than the first way had")
        return seconds

    def predicted(self, way: str) -> float:
        """What the split says now of a way, with the pace that it found."""
        tokens = np.bincount(self._routing.expert_ids.reshape(-1), minlength=EXPERTS)
        nobody = np.zeros(EXPERTS, np.bool_)
        self._way = way
        return self._choose(tokens, nobody, COSTS, ~nobody, self._stream.pace.pair).seconds

    def close(self) -> None:
        """End the threads."""
        self._stream.close()
        self._unit.close()

    def _choose(
        self,
        tokens: NDArray[np.int64],
        resident: NDArray[np.bool_],
        costs: Costs,
        movable: NDArray[np.bool_],
        slowdown: tuple[float, float],
    ) -> Split:
        """The split, with one side taken away where all is to go to the other."""
        if self._way == "cpu":
            costs = replace(costs, link_gb_s=0.0)
        elif self._way == "stream":
            costs = replace(costs, cpu_gflop_s=0.0)
        return split(tokens, resident, costs, movable, slowdown)
