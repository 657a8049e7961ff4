"""Swaps between RAM and the device while the model runs on.

    A comes, B leaves    copier: B's slot -> a spare slot of RAM; both serve from where they are
    copied               B serves from RAM; nobody reads its device slot any more
                         copier: A's slot of RAM -> the device slot
    copied               A serves from the device; its slot of RAM is free

Copies run on a thread of their own. Maps change only between two layers' steps and when the bytes
are there, so a step never waits for a copy and never sees half of one. Where RAM has no spare slot,
B is simply forgotten if a file has the record; else the swap waits for one, since a prompt wants
more swaps than there are spare slots. A record's new place is entered in a map before the old one
is struck out: an interrupt never leaves it without one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from hybrid.cache.device import Device
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.layer_map import LayerMap, Mask
from hybrid.cache.policy import Swap
from hybrid.cache.workers import Task, Workers


@dataclass(slots=True, eq=False)
class Move:
    """One swap under way; `spare` while the leaver is being copied out."""

    owner: LayerMap
    incoming: int
    outgoing: int
    slot: int
    spare: int | None
    copied: Task


class Promotions:
    """All swaps under way, and the device's free slots."""

    def __init__(self, device: Device, slots: HostSlots, can_forget: bool, keep_free: int) -> None:
        """`can_forget`: a file has every record. `keep_free`: slots of RAM left to reads."""
        self._device, self._slots = device, slots
        self._can_forget, self._keep_free = can_forget, keep_free
        self._free = list(range(device.count - 1, -1, -1))
        self._moves: list[Move] = []
        self._wanted: dict[tuple[int, int], tuple[LayerMap, Swap]] = {}  # by layer and newcomer
        self._copier = Workers(1, "promotions")
        self.promoted = 0
        self.demoted = 0
        self.copied_bytes = 0
        self.copy_s = 0.0

    def take(self) -> int | None:
        """A free slot of the device."""
        return self._free.pop() if self._free else None

    def resident(self, owner: LayerMap) -> Mask:
        """Who is on the device once all swaps of this layer have ended. [experts]"""
        mask = owner.vram >= 0
        for move in self._moves:
            if move.owner is owner:
                mask[move.incoming] = True
                if move.spare is not None:
                    mask[move.outgoing] = False
        return mask

    def begin(self, owner: LayerMap, swap: Swap) -> None:
        """Start a swap, or note it until there is a slot to swap through."""
        incoming, outgoing = swap.incoming, swap.outgoing
        if owner.ram[incoming] < 0 or incoming in owner.pinned or outgoing in owner.pinned:
            return
        if outgoing is not None and owner.vram[outgoing] < 0:
            return  # has left since the swap was noted
        if outgoing is None:
            slot = self.take()
            if slot is not None:
                self._fetch(owner, incoming, slot)
            return
        slot = int(owner.vram[outgoing])
        spare = self._slots.take() if self._slots.free > self._keep_free else None
        if spare is not None:
            owner.pinned |= {incoming, outgoing}
            copied = self._copier.submit(Task(partial(self._copy_out, slot, spare)))
            self._moves.append(Move(owner, incoming, outgoing, slot, spare, copied))
        elif self._can_forget:
            owner.vram[outgoing] = -1
            self.demoted += 1
            self._fetch(owner, incoming, slot)
        else:
            self._wanted[owner.layer, incoming] = owner, swap

    def publish(self) -> list[LayerMap]:
        """Let the maps see what has been copied, and go on with what waits; whose maps changed.

        No step may run.
        """
        ended = [each for each in self._moves if each.copied.ended]
        for move in ended:
            self._land(move)
        while self._wanted and self._slots.free > self._keep_free:
            self.begin(*self._wanted.pop(next(iter(self._wanted))))
        return [move.owner for move in ended]

    def drain(self) -> None:
        """Wait for every swap to end. No device may be computing."""
        while self._moves:
            self._copier.wait([self._moves[0].copied])
            self._land(self._moves[0])

    def give_up(self) -> None:
        """End every swap where it is. Maps are right as they are, pins and free slots are not."""
        self._copier.settle()
        self._moves.clear()
        self._wanted.clear()

    def reclaim(self, used: Iterable[int]) -> None:
        """All slots but the used ones are free."""
        taken = set(used)
        self._free = [slot for slot in range(self._device.count - 1, -1, -1) if slot not in taken]

    def close(self) -> None:
        """Finish the copies that run."""
        self._copier.close()

    def _fetch(self, owner: LayerMap, incoming: int, slot: int) -> None:
        owner.pinned.add(incoming)
        host_slot = int(owner.ram[incoming])
        copied = self._copier.submit(Task(partial(self._copy_in, host_slot, slot)))
        self._moves.append(Move(owner, incoming, -1, slot, None, copied))

    def _copy_out(self, slot: int, spare: int) -> None:
        began = perf_counter()
        self._device.load(slot, self._slots, spare)
        self._measure(began)

    def _copy_in(self, host_slot: int, slot: int) -> None:
        began = perf_counter()
        self._device.store(self._slots, host_slot, slot)
        self._measure(began)

    def _measure(self, began: float) -> None:
        """Only the copier's thread counts."""
        self.copied_bytes += self._slots.shape.nbytes
        self.copy_s += perf_counter() - began

    def _land(self, move: Move) -> None:
        owner = move.owner
        if move.copied.error is not None:
            raise move.copied.error
        if move.spare is not None:
            owner.ram[move.outgoing] = move.spare
            owner.vram[move.outgoing] = -1
            owner.pinned.discard(move.outgoing)
            self.demoted += 1
            self._fetch(owner, move.incoming, move.slot)
        else:
            host_slot = int(owner.ram[move.incoming])
            owner.vram[move.incoming] = move.slot
            owner.ram[move.incoming] = -1
            owner.pinned.discard(move.incoming)
            self._slots.give(host_slot)
            self.promoted += 1
        self._moves.remove(move)
