"""What tests of streamed prompts share: layers in RAM, prompts, and what the CPU says of them."""

import numpy as np
import torch

from hybrid.accelerator.host import HostAccelerator
from hybrid.backbone import Routing
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.layer_map import LayerMap
from hybrid.cache.policy import POLICIES
from hybrid.cache.ring import Ring
from hybrid.cache.split import Costs, Split
from hybrid.cache.streaming import Streamer
from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.record import GROUP_BYTES, STRIDE, RecordShape
from tests.cache.parts import ONE_NODE

SHAPE = RecordShape(96, 64)
EXPERTS, PER_TOKEN = 24, 4
LAYERS = 3
# one record takes longer on the link than a busy expert on either side
COSTS = Costs(
    record_bytes=SHAPE.nbytes, token_flop=2 * 3 * 96 * 64, link_gb_s=0.01, device_gb_s=1.0,
    device_gflop_s=10.0, cpu_gb_s=0.5, cpu_gflop_s=1.0,
)  # fmt: skip


def record(layer, expert, shape=SHAPE):
    """Random nibbles, scales near 0.01."""
    rng = np.random.default_rng((layer, expert, shape.hidden))
    content = rng.integers(0, 256, shape.nbytes, np.uint8).reshape(-1, STRIDE)
    scales = rng.uniform(0.005, 0.02, (len(content), 16)).astype(np.float32)
    content[:, GROUP_BYTES:] = (scales.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    return content.reshape(-1)


class Layers:
    """All experts of a few layers in RAM, in slots of no order, and their kernels."""

    def __init__(self, layers=LAYERS, experts=EXPERTS, shares=ONE_NODE, shape=SHAPE, spare=2):
        self.shape = shape
        self.slots = HostSlots(shape, layers * experts + spare, shares)
        order = np.random.default_rng(1).permutation(layers * experts)
        self.maps = [LayerMap(layer, experts, POLICIES["decayed-lfu"]) for layer in range(layers)]
        for own in self.maps:
            for expert in range(experts):
                slot = int(order[own.layer * experts + expert])
                own.ram[expert] = slot
                self.slots.fill(slot, record(own.layer, expert, shape))
            own.ram_slots = experts
        self.slots.reclaim(order.tolist())
        self.kernels = [
            ExpertLayer(
                experts, shape.hidden, shape.intermediate, "portable", 1, "int8",
                shards=self.slots.shards, where=own.ram,
            )
            for own in self.maps
        ]  # fmt: skip


def prompt(tokens, seed=0, experts=EXPERTS, k=PER_TOKEN, hidden=SHAPE.hidden):
    """Tokens that like some experts better than others; a few slots are skipped."""
    rng = np.random.default_rng(seed)
    liked = 1 / np.arange(1, experts + 1)
    ids = np.stack(
        [rng.choice(experts, k, replace=False, p=liked / liked.sum()) for _ in range(tokens)]
    ).astype(np.int32)
    ids[rng.random(ids.shape) < 0.05] = -1
    x = rng.standard_normal((tokens, hidden)).astype(np.float32)
    return Routing(x, ids, rng.random(ids.shape).astype(np.float32))


def said_by_cpu(kernel, routing):
    """Outputs [tokens * k, hidden] of every expert, zeros where there is none."""
    rows = np.zeros((routing.expert_ids.size, routing.hidden.shape[1]), np.float32)
    kernel.outputs(routing.hidden, routing.expert_ids, rows)
    return rows


def streamer(layers, units=None, choose=None, costs=COSTS, ahead=True, **ring):
    """A streamer over rings of 8 records, one on each unit."""
    units = units or [HostAccelerator()]
    rings = [Ring(unit, layers.slots, "int8", **({"records": 8} | ring)) for unit in units]
    return Streamer(rings, costs, **({"choose": choose} if choose else {}), ahead=ahead)


def forced(choose):
    """A split that streams those of the movable experts that `choose` picks."""

    def split(tokens, resident, costs, movable, slowdown):
        used = tokens > 0
        may = np.flatnonzero(used & ~resident & movable)
        streamed = np.asarray(choose(may, tokens), np.int32)
        on_cpu = np.setdiff1d(np.flatnonzero(used & ~resident), streamed).astype(np.int32)
        there = np.flatnonzero(used & resident).astype(np.int32)
        return Split(there, streamed, on_cpu, 1.0, 1.0)

    return split


def run(stream, layers, layer, routing, after=None):
    """A layer as Tiers computes it: rows [tokens * k, hidden] and who was streamed."""
    own, ids = layers.maps[layer], routing.expert_ids
    rows = torch.zeros((ids.size, routing.hidden.shape[1]))
    picked = np.unique(ids[ids >= 0]).astype(np.int32)
    taken = stream.begin(own, routing, picked[own.ram[picked] >= 0], rows, after=after)
    rest = np.where(np.isin(ids, taken), -1, ids).astype(np.int32)
    layers.kernels[layer].outputs(routing.hidden, rest, rows.numpy())
    stream.collect()
    return rows.numpy(), taken
