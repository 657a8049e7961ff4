"""The routed experts of a model, wherever their records are: one layer of one step.

    start     the router has spoken: what is in the file alone is ordered, the device begins
    finish    the CPU computes what is in RAM, then what arrives, while the device goes on;
              all outputs are summed in slot order, on the device if that joins
    after     counters; records that are not worth their RAM leave; a bounded number of swaps begins

Decode never waits for a copy to the device: a miss is computed where its bytes are. Who stays is
decided by pure functions (policy.py); what is computed does not depend on it.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybrid.backbone import Routing
from hybrid.cache import warm_start
from hybrid.cache.counters import FILE, RAM, Counters
from hybrid.cache.device import Device, Sum
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.layer_map import Ids, LayerMap
from hybrid.cache.policy import Swap
from hybrid.cache.prefetch import Ahead, Prefetch
from hybrid.cache.promotions import Promotions
from hybrid.cache.reader import Reader
from hybrid.cache.report import report
from hybrid.cache.step import Step, distinct, only
from hybrid.cpu_experts import ExpertLayer
from hybrid.errors import KernelError

F32 = NDArray[np.float32]
WAVE = 16  # experts in RAM that are computed before it is looked what has arrived


class Tiers:
    """All layers' experts over device, RAM and file. One thread at a time."""

    def __init__(
        self,
        layers: Sequence[ExpertLayer | None],
        maps: Sequence[LayerMap | None],
        slots: HostSlots,
        counters: Counters,
        reader: Reader | None = None,
        device: Device | None = None,
        promotions: Promotions | None = None,
        prefetch: bool = True,
        key: str = "",
    ) -> None:
        """`layers` compute what their map's `ram` says is there; `key`: see warm_start.py."""
        self.maps, self.counters = maps, counters
        self.slots, self.reader, self.promotions = slots, reader, promotions
        self.layers, self._device = layers, device
        self._prefetch = Prefetch(reader, slots, counters) if reader and prefetch else None
        self._key = key
        self._all_in_ram = reader is None and device is None
        self._step: Step | None = None
        self._outputs = np.empty((0, slots.shape.hidden), np.float32)

    def start(self, layer: int, routing: Routing, prompt: bool) -> Step:
        """Order what must be read and let the device begin. Every start has its finish."""
        if self._step is not None:
            self._abandon()
        own = self.maps[layer]
        assert own is not None
        step = self._step = Step(own, routing, prompt)
        ids = routing.expert_ids
        if self._all_in_ram:
            uses = ids.size if len(ids) == 1 else len(distinct(ids))
            self.counters.count_in_ram(layer, ids.size, uses)
            return step
        picked = distinct(ids)
        if self.promotions is not None:
            for changed in self.promotions.publish():
                if changed is not own:  # which is about to say whom it needs
                    self._trim(changed)
        early = self._land(own, picked)
        own.observe(ids)
        step.swaps = self._swaps(own, ids)
        if early or own.ram[picked].min(initial=0) < 0 or self._streams(step):
            self._split(step, picked, early)
        else:
            own.missed(0)
            self.counters.count_in_ram(layer, ids.size, len(picked))
        return step

    def finish(self, step: Step, ahead: Ahead | None = None) -> Sum:
        """The routed sum [tokens, hidden]. `ahead` is asked only where an answer can pay.

        A float32 tensor on the device if that took part and joins there, else of the host: numpy.
        Raises CheckpointError if a record cannot be read; nothing of it stays, and the next step
        may well succeed.
        """
        own, routing = step.own, step.routing
        if step.outputs is None:
            self._order_ahead(step, ahead)
            began = perf_counter()
            routed = self._cpu(own).forward(routing.hidden, routing.expert_ids, routing.weights)
            self.counters.compute_s += perf_counter() - began
        else:
            routed = self._gather(step, step.outputs, ahead)
        for swap in step.swaps:
            assert self.promotions is not None
            self.promotions.begin(own, swap)
        self._trim(own)
        self._step = None
        return routed

    def remember(self) -> None:
        """Keep what was learnt for the next run of this model."""
        if self._key and not self._all_in_ram:
            warm_start.keep(self._key, np.stack([own.worth() for own in self._known()]))

    def stats(self) -> dict[str, Any]:
        """Sums since loading, by tier and by layer; see report.py."""
        streamed = self._device.streamed() if self._device else {}
        return report(self._known(), self.counters, self.reader, self.promotions, streamed)

    def close(self) -> None:
        """Finish what runs in the background. A step of another thread ends in a KernelError."""
        with ExitStack() as ends:
            for part in (self._device, self.reader, self.promotions):
                if part is not None:
                    ends.callback(part.close)

    def _cpu(self, own: LayerMap) -> ExpertLayer:
        layer = self.layers[own.layer]
        assert layer is not None
        return layer

    def _split(self, step: Step, picked: Ids, early: list[int]) -> None:
        """Count where the step's experts are, and begin what must begin if that is not RAM alone.

        `early` are those that had to be read for this step, if before it began.
        """
        own, ids = step.own, step.routing.expert_ids
        tier = own.tiers_of(picked)
        absent = picked[tier == FILE]
        own.missed(len(absent) + len(early))
        if (tier != RAM).any() or self._streams(step):
            self._begin(step, picked, absent)
        if early:
            tier[np.isin(picked, early)] = FILE
        times = None if len(ids) == 1 else np.bincount(ids[ids >= 0])[picked]
        self.counters.count(own.layer, tier, times)

    def _begin(self, step: Step, picked: Ids, absent: Ids) -> None:
        """Let the device and the file begin."""
        own, routing = step.own, step.routing
        step.picked = picked
        step.outputs = self._room(routing.expert_ids.size)
        mine = only(routing.expert_ids, own.vram >= 0)
        if (mine >= 0).any():
            assert self._device is not None
            step.on_device = True
            self._device.launch(own.layer, routing, mine, step.outputs)
        if len(absent) and self.reader is None:
            raise KernelError(
                f"expert {absent[0]} of layer {own.layer} is in no memory; load the model again"
            )
        if self.reader is not None:
            step.stays = own.stays(picked)
            step.stays[[swap.incoming for swap in step.swaps]] = True
            idle = step.stays.copy()
            idle[picked] = True
            self._drop(own, np.flatnonzero((own.ram >= 0) & ~idle))
            step.waiting = {int(e): own.reading[e] for e in absent if e in own.reading}
            step.missing = [int(e) for e in absent if e not in own.reading]
            self._order(step)
        if self._streams(step):
            self._lend(step, picked)

    def _streams(self, step: Step) -> bool:
        """Whether the device may take experts that are in RAM."""
        return step.prompt and self._device is not None and self._device.streams

    def _lend(self, step: Step, picked: Ids) -> None:
        """Let the device take some that are in RAM, and keep them there as long."""
        own = step.own
        assert self._device is not None
        in_ram = picked[own.ram[picked] >= 0]
        taken = self._device.take(own, step.routing, in_ram, self._next(own)).tolist()
        step.taken, step.held = taken, set(taken) - own.pinned
        own.pinned |= step.held
        step.on_device = step.on_device or bool(taken)

    def _gather(self, step: Step, outputs: F32, ahead: Ahead | None) -> Sum:
        """Compute some of what is in RAM and what has arrived, until nothing is left."""
        own, ids = step.own, step.routing.expert_ids
        todo = self._in_ram(step)
        if step.settled:
            self._order_ahead(step, ahead)
        while todo or not step.settled:
            experts, todo = todo[:WAVE], todo[WAVE:]
            if not step.settled:
                if not (experts or step.waiting or self.slots.free):
                    self._make_room(step)
                self._order(step)
                experts += self._arrived(step, wait=not experts)
                if step.settled:
                    self._order_ahead(step, ahead)
            self._compute(step, outputs, experts)
            self._drop_leavers(step, experts)
        joined = None
        if step.on_device:
            assert self._device is not None
            joined = self._device.join(step.routing, outputs)
            self._take_back(step)
        if joined is not None:
            return joined
        return self._cpu(own).combine(outputs, ids, step.routing.weights)

    def _in_ram(self, step: Step) -> list[int]:
        """The step's experts in RAM; first those whose slots will then be free to read into."""
        own = step.own
        assert step.picked is not None
        there = step.picked[own.ram[step.picked] >= 0]
        if step.taken:
            there = there[~np.isin(there, step.taken)]
        if step.stays is not None:
            there = there[np.argsort(step.stays[there], kind="stable")]
        experts: list[int] = there.tolist()
        return experts

    def _compute(self, step: Step, outputs: F32, experts: Sequence[int]) -> None:
        """Outputs of some of the step's experts, all in RAM."""
        if experts:
            here = np.zeros(step.own.experts, np.bool_)
            here[experts] = True
            ids = only(step.routing.expert_ids, here)
            began = perf_counter()
            self._cpu(step.own).outputs(step.routing.hidden, ids, outputs)
            self.counters.compute_s += perf_counter() - began

    def _order(self, step: Step) -> None:
        """Order what is missing, as far as there are slots, in the order of the file."""
        assert self.reader is not None
        while step.missing and (slot := self.slots.take()) is not None:
            expert = step.missing.pop(0)
            read = self.reader.order(step.own.layer, expert, slot, ahead=False)
            step.own.reading[expert] = step.waiting[expert] = read

    def _arrived(self, step: Step, *, wait: bool) -> list[int]:
        """The records that have come; if asked to, sleep until there is one."""
        assert self.reader is not None
        done = [read for read in step.waiting.values() if read.done]
        if wait and not done:
            began = perf_counter()
            done = self.reader.wait(step.waiting.values())
            self.counters.stalled_s[step.own.layer] += perf_counter() - began
        for read in done:
            if read.error is not None:
                self._abandon()
                raise read.error
        for read in done:
            del step.waiting[read.expert], step.own.reading[read.expert]
            step.own.ram[read.expert] = read.slot
        return [read.expert for read in done]

    def _collect(self, step: Step) -> None:
        """Wait until the device has computed what it has of this step."""
        if step.on_device:
            assert self._device is not None
            self._device.collect()
            self._take_back(step)

    def _take_back(self, step: Step) -> None:
        """The device has computed what it took from RAM: those may go."""
        step.own.pinned -= step.held
        self._drop_leavers(step, [e for e in step.taken if e not in step.own.pinned])
        step.held, step.taken = set(), []

    def _abandon(self) -> None:
        """End a step that was broken off anywhere, also within a change of the books.

        Nobody touches a slot any more; then what the maps say is true, and the rest follows. If
        this is broken off too, the next step begins with it again.
        """
        if self._device is not None:
            self._device.settle()
        if self.promotions is not None:
            self.promotions.give_up()
        if self.reader is not None:
            self.reader.settle()
        known = self._known()
        for own in known:
            own.mend()
        self.slots.reclaim(slot for own in known for slot in own.ram[own.ram >= 0].tolist())
        if self.promotions is not None:
            self.promotions.reclaim(s for own in known for s in own.vram[own.vram >= 0].tolist())
        for own in known:
            self._trim(own)
        self._step = None

    def _drop(self, own: LayerMap, experts: Iterable[int]) -> None:
        for expert in experts:
            slot = int(own.ram[expert])
            own.ram[expert] = -1  # before anybody else can have the slot
            self.slots.give(slot)

    def _drop_leavers(self, step: Step, computed: Sequence[int]) -> None:
        """Forget those of the computed experts that are not worth their RAM."""
        if step.stays is not None:
            self._drop(step.own, [expert for expert in computed if not step.stays[expert]])

    def _trim(self, own: LayerMap) -> None:
        """Bring the layer back to its share of RAM: demoted and predicted records came on top."""
        if self.reader is not None and np.count_nonzero(own.ram >= 0) > own.ram_slots:
            nobody = np.empty(0, np.int32)
            self._drop(own, np.flatnonzero((own.ram >= 0) & ~own.stays(nobody)))

    def _make_room(self, step: Step) -> None:
        """Free a slot although nothing wants to leave: whatever is needed least."""
        if step.taken:
            self._collect(step)
        for own in self._known():
            if any(read.ahead for read in own.reading.values()):
                self._forget_ahead(own)
        others = [own for own in self._known() if own is not step.own]
        for own in (step.own, *others):
            if self.slots.free:
                return
            worst = own.worst(np.ones(own.experts, np.bool_))
            if worst is not None:
                self._drop(own, [worst])
        if not self.slots.free and self.promotions is not None:
            self._collect(step)  # it may be reading what a swap would overwrite
            self.promotions.drain()
            for own in others:
                self._trim(own)
        if not self.slots.free:
            raise KernelError("every slot of the expert cache is in use; load the model again")

    def _forget_ahead(self, own: LayerMap) -> None:
        """Take back the slots of predicted records."""
        for expert, read in [item for item in own.reading.items() if item[1].ahead]:
            assert self.reader is not None
            if not self.reader.cancel(read):
                self.reader.wait([read])
            del own.reading[expert]
            self.slots.give(read.slot)

    def _land(self, own: LayerMap, picked: Ids) -> list[int]:
        """Admit records that came since the last visit; those of them that are picked now."""
        early = []
        for expert, read in list(own.reading.items()):
            wanted = bool((picked == expert).any())
            if read.ahead:
                self.counters.foreseen[own.layer] += wanted
                own.foresaw(right=wanted)
            if read.done:
                del own.reading[expert]
                if read.error is None:
                    own.ram[expert] = read.slot
                    early += [expert] if wanted else []
                else:
                    self.slots.give(read.slot)
            elif not wanted and self.reader is not None and self.reader.cancel(read):
                del own.reading[expert]
                self.slots.give(read.slot)
        return early

    def _order_ahead(self, step: Step, ahead: Ahead | None) -> None:
        """Read what the next layer will probably want, if this is a token of an answer."""
        after = self._next(step.own)
        if not (self._prefetch is None or ahead is None or after is None or step.prompt):
            self._prefetch.order(after, ahead)

    def _next(self, own: LayerMap) -> LayerMap | None:
        return self.maps[own.layer + 1] if own.layer + 1 < len(self.maps) else None

    def _known(self) -> list[LayerMap]:
        return [own for own in self.maps if own is not None]

    def _swaps(self, own: LayerMap, ids: Ids) -> tuple[Swap, ...]:
        """Who should come to the device for whom, now that the router has spoken."""
        if self.promotions is None or not own.vram_slots:
            return ()
        resident = self.promotions.resident(own)
        return own.policy.swaps(own.vram_memory, resident, own.vram_slots, ids[-1:], len(ids))

    def _room(self, rows: int) -> F32:
        """Rows for outputs; the same memory for every step."""
        if self._device is not None:
            return self._device.room(rows)
        if len(self._outputs) < rows:
            self._outputs = np.empty((rows, self._outputs.shape[1]), np.float32)
        return self._outputs[:rows]
