"""The device tier on accelerators: experts in the memory of one card or several, summed there.

    first card    x ── outputs of its slots ─────────── rows of others ── sum in slot order ──>
    other cards   x ── outputs of their slots ── their rows ──^    ^
    CPU           outputs of what is in RAM ── pinned rows ────────┘

The host enqueues and goes on: what it waits for is what the next router says. `current` of the
first card is the backbone's own stream. It gives x and takes the sum, so each launch comes after
the join before it, and memory that the steps share is free when it is written again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.accelerator.interface import Accelerator, Event
from hybrid.backbone import Routing
from hybrid.cache.card import Card
from hybrid.cache.dealing import deal
from hybrid.cache.gather import Gather
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.layer_map import Ids, LayerMap, Mask
from hybrid.cache.streaming import Streamer
from hybrid.cache.upload import Upload
from hybrid.cpu_experts.record import RecordShape
from hybrid.gpu_experts.ops import combine

F32 = NDArray[np.float32]
LANDING = 2048  # rows of the CPU's that land at a time: of K2.5, 59 MB of the device
NOBODY = np.empty(0, np.int32)


@dataclass(slots=True, eq=False)
class _Step:
    """One layer's experts between the first launch and the join."""

    routing: Routing  # whose it is
    x: Tensor  # [tokens, hidden] on the first card
    ready: Event  # behind x
    rows: Tensor  # [tokens * k, hidden] on the first card
    away: Mask  # [tokens, k], what the CPU does not compute
    brought: list[Event] = field(default_factory=list)  # behind other cards' rows
    streamed: bool = False


class TorchDevice:
    """See Device. Slots are dealt over the cards; the sum is made on the first."""

    def __init__(
        self,
        units: Sequence[Accelerator],
        counts: Sequence[int],
        shape: RecordShape,
        where: Sequence[NDArray[np.int32] | None],
        activation: str,
        streamer: Streamer | None = None,
    ) -> None:
        """`counts`: slots of each unit. `where`: by layer, an expert's slot, -1 for none."""
        self.count = sum(counts)
        self.streams = streamer is not None
        self.streamer = streamer
        self._hidden, self._where = shape.hidden, where
        self._card_of, self._local = deal(counts)
        self._cards = [
            Card(unit, shape, count, activation) for unit, count in zip(units, counts, strict=True)
        ]
        self._first = first = self._cards[0]
        self._ways = [Gather(card.unit, first.unit, shape.hidden) for card in self._cards[1:]]
        self._xs = [_Rows(card.unit, shape.hidden) for card in self._cards[1:]]
        self._x, self._words = (Upload(first.unit, first.compute) for _ in range(2))
        self._rows, self._landing = (_Rows(first.unit, shape.hidden) for _ in range(2))
        self._room = first.unit.pinned(0)
        self._uploaded: Event | None = None  # behind the copies from `_room`
        self._step: _Step | None = None

    def room(self, rows: int) -> F32:
        """See Device."""
        if self._uploaded is not None:
            self._uploaded.wait()
        if len(self._room) < rows * self._hidden * 4:
            self._room = self._first.unit.pinned(rows * self._hidden * 4)
        memory: F32 = self._room.numpy().view(np.float32).reshape(-1, self._hidden)
        return memory[:rows]

    def launch(self, layer: int, routing: Routing, ids: Ids, outputs: F32) -> None:
        """See Device; nothing is written to `outputs`, which are for the CPU."""
        step, where = self._begun(routing), self._where[layer]
        assert where is not None
        slots = np.where(ids >= 0, where[ids], -1)  # [tokens, k]
        step.away |= slots >= 0
        card_of = np.where(slots >= 0, self._card_of[slots], -1)
        local = self._local[slots]
        for at, card in enumerate(self._cards):
            mine = np.where(card_of == at, local, -1).astype(np.int32, copy=False)
            if (mine >= 0).any():
                if at == 0:
                    card.compute.after(step.ready)
                    card.outputs(step.x, mine, step.rows)
                else:
                    self._launch_beside(step, at, mine)

    def take(self, own: LayerMap, routing: Routing, in_ram: Ids, after: LayerMap | None) -> Ids:
        """See Device."""
        if self.streamer is None:
            return NOBODY
        step = self._begun(routing)
        self._first.unit.current().after(step.ready)
        step.streamed = True
        taken: Ids = self.streamer.begin(own, routing, in_ram, step.rows, step.x, after)
        step.away |= np.isin(routing.expert_ids, taken)
        return taken

    def join(self, routing: Routing, outputs: F32) -> Tensor:
        """See Device: the sum [tokens, hidden] on the first card, in its current stream."""
        step = self._begun(routing)
        self.collect_streamed()
        compute = self._first.compute
        compute.after(step.ready)
        ours = ~step.away & (routing.expert_ids >= 0)
        ids, weights, of_host = self._words.send(
            routing.expert_ids, routing.weights, ours.astype(np.int32)
        )
        for event in step.brought:
            compute.after(event)
        self._land(ours.reshape(-1), of_host.view(-1, 1), outputs, step.rows)
        made: list[Tensor] = []
        compute.run(lambda: made.append(combine(step.rows, ids, weights)))
        self._first.unit.current().after(compute.record())
        self._step = None
        return made[0]

    def collect(self) -> None:
        """See Device."""
        self.collect_streamed()
        if self._step is not None:
            for event in (self._step.ready, *self._step.brought, self._first.compute.record()):
                event.wait()

    def collect_streamed(self) -> None:
        """Wait until what was taken is written."""
        if self.streamer is not None and self._step is not None and self._step.streamed:
            self.streamer.collect()
            self._step.streamed = False

    def settle(self) -> None:
        """See Device."""
        if self.streamer is not None:
            self.streamer.settle()
        for card in self._cards:
            card.settle()
        for way in self._ways:
            way.settle()
        self._x.settle()
        self._words.settle()
        self._uploaded = self._step = None

    def store(self, source: HostSlots, host_slot: int, slot: int) -> None:
        """See Device."""
        self._cards[self._card_of[slot]].store(source, host_slot, int(self._local[slot]))

    def load(self, slot: int, target: HostSlots, host_slot: int) -> None:
        """See Device."""
        self._cards[self._card_of[slot]].load(int(self._local[slot]), target, host_slot)

    def streamed(self) -> dict[str, int]:
        """See Device."""
        streamer = self.streamer
        if streamer is None:
            return {}
        return {"records": streamer.streamed, "early": streamer.early, "in_vain": streamer.wasted}

    def close(self) -> None:
        """See Device."""
        if self.streamer is not None:
            self.streamer.close()
        for way in self._ways:
            way.close()
        for card in self._cards:
            card.close()

    def _begun(self, routing: Routing) -> _Step:
        """This step, with x on the first card; one that nobody joined is forgotten."""
        if self._step is None or self._step.routing is not routing:
            unit, compute = self._first.unit, self._first.compute
            ready, x = unit.current().record(), routing.kept
            compute.after(ready)
            if not _fits(x, routing.hidden, unit.device):
                (x,) = self._x.send(routing.hidden)
                ready = compute.record()
            rows = self._rows.of(routing.expert_ids.size)
            away = np.zeros(routing.expert_ids.shape, np.bool_)
            self._step = _Step(routing, x, ready, rows, away)
        return self._step

    def _launch_beside(self, step: _Step, at: int, slots: Ids) -> None:
        """Another card than the first computes, and its rows come there."""
        card, way = self._cards[at], self._ways[at - 1]
        x = self._xs[at - 1].of(len(step.x))
        rows, free = way.rows(slots.size)
        card.compute.after(free)
        card.compute.after(step.ready)
        card.compute.copy(x, step.x)
        written = card.outputs(x, slots, rows)
        positions = np.flatnonzero(slots.reshape(-1) >= 0)
        step.brought.append(way.bring(positions, written, step.rows, step.ready))

    def _land(self, ours: Mask, of_host: Tensor, outputs: F32, rows: Tensor) -> None:
        """Enqueue the CPU's rows into their places; `of_host` [rows, 1] says which they are."""
        compute, source = self._first.compute, torch.from_numpy(outputs)
        landing = self._landing.of(min(len(rows), LANDING))
        for start in range(0, len(rows), LANDING):
            part = slice(start, start + LANDING)
            if ours[part].any():
                landed = landing[: len(rows[part])]
                compute.copy(landed, source[part])
                compute.run(partial(_merge, rows[part], of_host[part], landed))
        self._uploaded = compute.record()


class _Rows:
    """Rows on a card for every step: the same memory, grown when needed."""

    def __init__(self, unit: Accelerator, width: int) -> None:
        self._rows = torch.empty((0, width), device=unit.device)

    def of(self, count: int) -> Tensor:
        """`count` rows, float32 [count, width]; what they hold is anything."""
        if len(self._rows) < count:
            self._rows = self._rows.new_empty((count, self._rows.shape[1]))
        return self._rows[:count]


def _merge(rows: Tensor, of_host: Tensor, landed: Tensor) -> None:
    torch.where(of_host > 0, landed, rows, out=rows)


def _fits(kept: object, hidden: F32, device: torch.device) -> bool:
    """Whether x is on the device already, as the backbone left it."""
    return (
        isinstance(kept, Tensor)
        and kept.device == device
        and kept.dtype == torch.float32
        and kept.shape == hidden.shape
        and kept.is_contiguous()
    )
