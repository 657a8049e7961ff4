"""Our own layer under the bench: filled in seconds, shared by every mode and thread count."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import synthetic
from synthetic import DISTINCT, HIDDEN, INTERMEDIATE, Routing

from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.cores import available_cores


class Ours:
    """An ExpertLayer of K2.5's size, timed in this process."""

    engine = "ours"

    def __init__(
        self, experts: int, isa: str | None, activation: str, threads: int, like: "Ours | None"
    ) -> None:
        """`like`: a layer whose records this one uses too."""
        records = like.layer.records if like else None
        self.layer = ExpertLayer(
            experts, HIDDEN, INTERMEDIATE, isa, threads, activation, records=records
        )
        self.isa, self.activation, self.threads = self.layer.isa, self.layer.activation, threads
        if like:
            self.layer.where[:] = np.arange(experts)

    def fill(self) -> float:
        """Repack DISTINCT experts and copy their records to the rest; GB/s of the repacking."""
        experts = [synthetic.expert(index) for index in range(DISTINCT)]
        for index, tensors in enumerate(experts):  # maps the pages, unlike the timed turn
            self._set(index, tensors)
        began = time.perf_counter()
        for index, tensors in enumerate(experts):
            self._set(index, tensors)
        seconds = time.perf_counter() - began
        records = self.layer.records
        with ThreadPoolExecutor(available_cores()) as pool:  # mapping fresh pages takes longest
            list(pool.map(partial(_copy, records), range(DISTINCT, len(records))))
        self.layer.where[:] = np.arange(len(records))
        return DISTINCT * self.layer.record_bytes / seconds / 1e9

    def _set(self, index: int, tensors: dict[str, synthetic.Int4Matrix]) -> None:
        pairs = {name: (matrix.packed, matrix.scale) for name, matrix in tensors.items()}
        self.layer.set_expert(index, **pairs)

    def resume(self) -> None:
        """Nothing: its workers sleep by themselves."""

    def suspend(self) -> None:
        """Nothing."""

    def step(
        self, x: np.ndarray, routing: Routing, output: bool = False
    ) -> tuple[float, np.ndarray | None]:
        """Seconds of one step, and if asked for its output [tokens, hidden]."""
        out = np.empty_like(x)  # [tokens, hidden]
        began = time.perf_counter()
        self.layer.forward(x, routing.ids, routing.weights, out=out)
        return time.perf_counter() - began, out if output else None


def _copy(records: np.ndarray, index: int) -> None:
    records[index] = records[index % DISTINCT]
