"""Rows in pieces, taken by threads of our own: the same bits for any number of threads.

A piece's bounds follow from the number of rows alone, and on the CPU each piece is computed by one
thread whose matrix products have no further threads: who computes it cannot change it. Pieces also
bound the scratch: an MLP's hidden rows exist for one piece a thread at a time. A GPU gets all rows
at once.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch

MOST_ROWS = 512  # of a piece: more gain nothing
LEAST_ROWS = 128  # cost 1 to 5 % of the speed, 64 a tenth or more (Zen 3, docs/log.md)
PIECES = 32  # that a machine of many cores wants; between the bounds above

Task = Callable[[], None]
Poll = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Crew:
    """Who does the work: an executor's threads, or the caller where there is none."""

    executor: ThreadPoolExecutor | None
    whole: bool  # rows are never cut, and items share the linear layers
    poll: Poll

    def pieces(self, count: int, most: int | None = None) -> list[slice]:
        """Cut `count` rows into pieces of nearly equal size, none above `most`."""
        if most is None:
            most = min(max(-(-count // PIECES), LEAST_ROWS), MOST_ROWS)
        parts = 1 if self.whole else -(-count // most)
        bounds = [count * part // parts for part in range(parts + 1)]
        return [slice(*pair) for pair in pairwise(bounds)]

    def over(self, count: int, work: Callable[[slice], None]) -> None:
        """Call `work` on every piece of `count` rows, in any order."""
        self.each(partial(work, rows) for rows in self.pieces(count))

    def each(self, tasks: Iterable[Task]) -> None:
        """Do all tasks; they write to different places. What `poll` raises ends it early."""
        if self.executor is None:
            for task in tasks:
                self.poll()
                task()
            return
        for future in [self.executor.submit(_inferred, task) for task in tasks]:
            self.poll()
            future.result()


def _inferred(task: Task) -> None:
    with torch.inference_mode():  # a setting of each thread
        task()


@contextmanager
def crew(device: torch.device, threads: int, poll: Poll) -> Iterator[Crew]:
    """Threads for one pass; torch itself runs on one thread meanwhile if `device` is the CPU."""
    if device.type != "cpu":
        yield Crew(None, whole=True, poll=poll)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that start from now on take this over
    executor = ThreadPoolExecutor(threads) if threads > 1 else None
    try:
        yield Crew(executor, whole=False, poll=poll)
    finally:
        if executor:
            executor.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
