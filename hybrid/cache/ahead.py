"""Threads that work ahead of a caller who takes their results in order, within a few slots."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Result = TypeVar("Result")


def ahead(
    items: Iterable[int],
    work: Callable[[int, NDArray[np.uint8]], Result],
    slots: Sequence[NDArray[np.uint8]],
) -> Generator[tuple[int, NDArray[np.uint8], Result], None, None]:
    """Yield item, slot and work(item, slot) in order; threads work on the next items meanwhile.

    A slot belongs to the caller until the next item is asked for, then to the next work.
    """
    free = deque(slots)
    running: deque[tuple[int, NDArray[np.uint8], Future[Result]]] = deque()
    pool = ThreadPoolExecutor(max(1, len(slots) - 1))

    def first() -> Iterator[tuple[int, NDArray[np.uint8], Result]]:
        item, slot, future = running.popleft()
        yield item, slot, future.result()
        free.append(slot)

    try:
        for item in items:
            if not free:
                yield from first()
            slot = free.popleft()
            running.append((item, slot, pool.submit(work, item, slot)))
        while running:
            yield from first()
    finally:  # an interrupt waits for the records that are being read, not for those queued
        pool.shutdown(cancel_futures=True)
