"""The first records: which of them, into which memory, read by several threads at once."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from hybrid.cache.device import Device
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.layer_map import LayerMap
from hybrid.cache.promotions import Promotions
from hybrid.cache.source import RecordSource
from hybrid.progress import Progress, ProgressSink


class Filling:
    """Reads what the maps have room for, best experts first, the device's before RAM's."""

    def __init__(
        self,
        source: RecordSource,
        slots: HostSlots,
        device: Device | None,
        promotions: Promotions | None,
        sink: ProgressSink,
    ) -> None:
        self._source, self._slots = source, slots
        self._device, self._promotions = device, promotions
        self._sink = sink
        self._running: deque[tuple[Future[None], int | None]] = deque()
        self._done = self._total = self._most = 0

    def fill(self, maps: list[LayerMap], threads: int) -> None:
        """Fill both memories; an interrupt does not wait for what is queued."""
        plans = [(own, *_chosen(own)) for own in maps]
        self._total = sum(len(device) + len(ram) for _, device, ram in plans)
        self._report(0)
        self._most = 2 * threads
        pool = ThreadPoolExecutor(threads, "filling")
        try:
            for own, experts, _ in plans:
                for expert in experts:
                    self._to_device(pool, own, int(expert))
            for own, _, experts in plans:
                for expert in experts:
                    self._to_ram(pool, own, int(expert))
            while self._running:
                self._finish_one()
        finally:
            pool.shutdown(cancel_futures=True)

    def _to_ram(self, pool: ThreadPoolExecutor, own: LayerMap, expert: int) -> None:
        slot = self._slot()
        own.ram[expert] = slot
        done = pool.submit(self._pull, own.layer, expert, slot)
        self._running.append((done, None))

    def _to_device(self, pool: ThreadPoolExecutor, own: LayerMap, expert: int) -> None:
        assert self._promotions is not None
        host_slot, slot = self._slot(), self._promotions.take()
        assert slot is not None
        own.vram[expert] = slot
        done = pool.submit(self._push, own.layer, expert, host_slot, slot)
        self._running.append((done, host_slot))

    def _pull(self, layer: int, expert: int, slot: int) -> None:
        self._slots.pull(self._source, layer, expert, slot)

    def _push(self, layer: int, expert: int, host_slot: int, slot: int) -> None:
        assert self._device is not None
        self._slots.pull(self._source, layer, expert, host_slot)
        self._device.store(self._slots, host_slot, slot)

    def _slot(self) -> int:
        """A slot of RAM; records on their way to the device give theirs back."""
        while len(self._running) >= self._most:
            self._finish_one()
        while (slot := self._slots.take()) is None:
            self._finish_one()
        return slot

    def _finish_one(self) -> None:
        done, host_slot = self._running.popleft()
        done.result()
        if host_slot is not None:
            self._slots.give(host_slot)
        self._report(self._done + 1)

    def _report(self, done: int) -> None:
        self._done = done
        size = self._slots.shape.nbytes
        self._sink(Progress("experts", done * size, self._total * size, "bytes"))


def _chosen(own: LayerMap) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The experts that begin on the device, and in RAM; equal ones in the order of the file."""
    best = np.argsort(-own.policy.rank(own.vram_memory), kind="stable")
    device = best[: own.vram_slots]
    best = np.argsort(-own.policy.rank(own.ram_memory), kind="stable")
    rest = best[~np.isin(best, device)][: own.ram_slots]
    return np.sort(device), np.sort(rest)
