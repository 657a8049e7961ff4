"""Prompts at the speed of the link: busy experts pass through rings, the CPU computes the rare.

    begin     split the layer's experts; a thread of each device begins to enqueue its part
    collect   wait until all their outputs are written
    settle    whatever happened: nothing is read or written any more

Towards Tiers a streamer is like the device: it takes experts that lie in RAM and writes their rows.
Bits do not depend on who computes what, so the split is free. The experts that it takes must stay
where they are in RAM until `collect`.

Once a layer's records are on their way, the link has nothing to do until the next layer's router
has spoken. Meanwhile half of each ring is filled with what foresight.py says, one record at a time:
a wrong guess costs the link no more than the record under way. Until the next `begin` such experts
are pinned in their layer's map, so that they stay where they are.

With several devices each has a ring of its own and takes its share of the experts over its own
link; rows of others than the first are brought there (gather.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.backbone import Routing
from hybrid.cache.foresight import Memory, guess, learnt
from hybrid.cache.lane import Fetch, Lane, Part
from hybrid.cache.layer_map import Ids, LayerMap, Mask
from hybrid.cache.pace import Pace, corrected
from hybrid.cache.ring import Landed, Load, Ring
from hybrid.cache.split import LEAST_TOKENS, Costs, Split, split

NOBODY = np.empty(0, np.int32)
Choose: TypeAlias = Callable[[NDArray[np.int64], Mask, Costs, Mask, tuple[float, float]], Split]


@dataclass(slots=True, eq=False)
class _Job:
    """A layer under way."""

    plan: Split
    began: float
    parts: list[Part] = field(default_factory=list)  # by lane


@dataclass(slots=True, eq=False)
class _Early:
    """What is uploaded for the next layer."""

    own: LayerMap
    pinned: frozenset[int]
    fetches: list[Fetch]  # by lane


class Streamer:
    """Rings, and who is to pass through them. All methods but `close` are for one thread."""

    def __init__(
        self, rings: Sequence[Ring], costs: Costs, choose: Choose = split, *, ahead: bool = True
    ) -> None:
        """`costs`: of all devices together; `ahead`: whether the next layer's uploads start early.

        The first ring's device is the one that joins.
        """
        first = rings[0].unit
        self.lanes = [Lane(ring, first) for ring in rings]
        self.costs, self.pace = costs, Pace()
        self.streamed = self.early = self.wasted = 0  # records uploaded; early; early and in vain
        self._first, self._choose, self._ahead = first, choose, ahead
        self._memories: dict[int, Memory] = {}
        self._chances = 0
        self._job: _Job | None = None
        self._early: _Early | None = None

    def begin(
        self,
        own: LayerMap,
        routing: Routing,
        in_ram: Ids,
        outputs: Tensor,
        x: Tensor | None = None,
        after: LayerMap | None = None,
    ) -> Ids:
        """Begin to compute some of the experts `in_ram`, and say which; the others are the CPU's.

        `outputs` float32 [tokens * k, hidden] and `x` float32 [tokens, hidden] are on the first
        device, and its current stream is the last that used them; x None: it is uploaded from
        `routing`. `after`: the next layer, None if there is none or it is not to be guessed.
        """
        early = self._end_early(own)
        ids = routing.expert_ids
        if len(ids) < LEAST_TOKENS:
            return NOBODY
        tokens = np.bincount(ids[ids >= 0], minlength=own.experts)
        movable = np.zeros(own.experts, np.bool_)
        movable[in_ram] = True
        landed = [[each for each in lane if movable[each.expert]] for lane in early]
        there = own.vram >= 0
        there[[each.expert for lane in landed for each in lane]] = True
        plan = self._choose(tokens, there, self.costs, movable, self.pace.pair)
        self._launch(own, routing, outputs, x, plan, landed)
        ahead = np.array([each.expert for lane in landed for each in lane], np.int32)
        taken = np.concatenate([ahead, plan.streamed])
        self._learn(own, taken, early)
        if after is not None and self._ahead:
            self._begin_early(after)
        return taken

    def collect(self) -> None:
        """Wait until all rows are written; raises what prevented that."""
        job, self._job = self._job, None
        if job is None:
            return
        asked = perf_counter()
        for lane, part in zip(self.lanes, job.parts, strict=True):
            lane.collect(part)
        ended = [part.ended or perf_counter() for part in job.parts]
        predicted = job.plan.device_s, job.plan.cpu_s
        self.pace = corrected(self.pace, predicted, (max(ended) - job.began, asked - job.began))

    def settle(self) -> None:
        """Give up what is under way and wait until no memory is in use. Maps are not touched."""
        for lane in self.lanes:
            lane.settle()
        self._job = self._early = None

    def close(self) -> None:
        """The same, for ever. Any thread may."""
        for lane in self.lanes:
            lane.close()

    def _launch(
        self,
        own: LayerMap,
        routing: Routing,
        outputs: Tensor,
        x: Tensor | None,
        plan: Split,
        landed: list[list[Landed]],
    ) -> None:
        """Deal the experts to the lanes and let them begin."""
        self.streamed += len(plan.streamed)
        if not len(plan.streamed) and not any(landed):
            return
        job = _Job(plan, perf_counter())
        ready, count = self._first.current().record(), len(self.lanes)
        hidden = torch.from_numpy(routing.hidden)
        for index, lane in enumerate(self.lanes):
            mine = plan.streamed[index::count].tolist()
            load = Load(
                count=own.experts,
                ids=routing.expert_ids,
                hidden=hidden,
                x=x,
                landed=landed[index],
                experts=[(expert, int(own.ram[expert])) for expert in mine],
                rows=outputs,
                ready=(ready,),
            )
            job.parts.append(lane.begin(load))
        self._job = job

    def _learn(self, own: LayerMap, taken: Ids, early: list[list[Landed]]) -> None:
        """Remember whom this layer streamed, and whether that had been foreseen."""
        wanted = np.zeros(own.experts, np.bool_)
        wanted[taken] = True
        guessed = np.array([each.expert for lane in early for each in lane], np.int32)
        self.early += len(guessed)
        self.wasted += int(np.count_nonzero(~wanted[guessed]))
        memory = self._memories.get(own.layer)
        self._memories[own.layer] = learnt(memory, taken, guessed, wanted)

    def _begin_early(self, after: LayerMap) -> None:
        """Begin to fill half of the rings for the next layer, behind this one's records.

        Only where all of that layer's records are in memory: else the slots that this pins may be
        those that its reads from the file need.
        """
        self._chances += 1
        may = after.ram >= 0
        if not (may | (after.vram >= 0)).all():
            return
        may[list(after.pinned)] = False
        shares = [lane.ring.records // 2 for lane in self.lanes]
        memory = self._memories.get(after.layer)
        experts = guess(memory, may, min(shares) * len(shares), self._chances)
        if not len(experts):
            return
        early = _Early(after, frozenset(experts.tolist()), [Fetch() for _ in self.lanes])
        self._early = early
        after.pinned |= early.pinned
        for index, (lane, fetch) in enumerate(zip(self.lanes, early.fetches, strict=True)):
            mine = experts[index :: len(self.lanes)].tolist()
            lane.fetch(fetch, [(expert, int(after.ram[expert])) for expert in mine])

    def _end_early(self, own: LayerMap) -> list[list[Landed]]:
        """End the early uploads; by lane what came of them, if they were for this layer."""
        early, self._early = self._early, None
        if early is None:
            return [[] for _ in self.lanes]
        for lane, fetch in zip(self.lanes, early.fetches, strict=True):
            lane.end(fetch)
        early.own.pinned -= early.pinned
        if early.own is not own:
            return [[] for _ in self.lanes]
        return [fetch.landed for fetch in early.fetches]
