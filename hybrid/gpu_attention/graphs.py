"""Work that is launched again and again: recorded once as a CUDA graph, then replayed.

    first time     run as it is: compiles kernels, chooses algorithms
    second time    captured, and run
    afterwards     one launch for all of it

A graph keeps addresses and numbers as they were when it was captured. So what changes from one run
to the next must lie in memory that stays where it is, and whatever else the work depends on must be
part of its key. Where capturing fails everything runs as it is, and the log says why, once.
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch

log = logging.getLogger(__name__)

Work = Callable[[], None]
Capture = Callable[[Work], Work]  # does the work once; returns what does the same again


@dataclass(slots=True)
class Launches:
    """How work was launched so far."""

    eager: int = 0
    captured: int = 0
    replayed: int = 0


class Graphs:
    """Recorded work by its key."""

    def __init__(self, capture: Capture | None) -> None:
        """`capture` None: everything runs as it is."""
        self.launches = Launches()
        self._capture = capture
        self._warm: set[Hashable] = set()
        self._replays: dict[Hashable, Work] = {}

    def run(self, key: Hashable, work: Work) -> None:
        """Do the work, which always is the same for the same key."""
        replay = self._replays.get(key)
        if replay is not None:
            replay()
            self.launches.replayed += 1
        elif self._capture is None or key not in self._warm:
            self.once(work)
            self._warm.add(key)
        else:
            self._record(key, work, self._capture)

    def once(self, work: Work) -> None:
        """Do work that will not come again."""
        work()
        self.launches.eager += 1

    def _record(self, key: Hashable, work: Work, capture: Capture) -> None:
        try:
            self._replays[key] = capture(work)
            self.launches.captured += 1
        except RuntimeError as error:  # torch's for everything that CUDA refuses
            self._capture = None
            reason = str(error).splitlines()[0]
            log.warning("decode runs without CUDA graphs, capturing failed: %s", reason)
            self.once(work)


class CudaCapture:
    """Captures on one device. All graphs share memory: between two of them none of it is used."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> Work:
        """See Capture. Other threads may use the device meanwhile.

        What fails while it is captured has not run: RuntimeError, and the caller may run it.
        """
        graph, pool, stream = torch.cuda.CUDAGraph(), self._pool, self._stream
        with (
            torch.cuda.stream(torch.cuda.current_stream(stream.device)),  # is ours again afterwards
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            work()
        graph.replay()
        return graph.replay
