"""Several passes at once: one thread a core, each with a graph and gradients of its own.

Torch's own threads would share each of the many small operations; here a thread takes whole passes.
Passes are dealt beforehand and gradients added in the order of the threads, so the bits depend on
the number of threads and on nothing else.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from nano.model.batch import Row, batch
from nano.model.forward import Graph
from nano.model.parameters import Parameters, is_trained

T = TypeVar("T")


@dataclass(slots=True)
class Share:
    """What one thread has found out in its passes."""

    grads: Parameters = field(default_factory=dict)
    losses: list[tuple[str, float, int]] = field(default_factory=list)  # task, sum, ids
    loads: dict[int, Tensor] = field(default_factory=dict)  # of each MoE layer [experts]


class Crew:
    """Threads for the life of a run."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def each(self, work: Callable[[int], T]) -> list[T]:
        """Run work(0) to work(threads - 1) side by side."""
        return list(self._pool.map(work, range(self.threads)))

    def gradients(
        self, graph: Graph, seen: Parameters, dealt: Sequence[Sequence[Sequence[Row]]], total: float
    ) -> Share:
        """Gradients of the weighted mean loss; `dealt` are the passes of each thread.

        `total` is the sum of weights of all of them.
        """
        shares = self.each(lambda n: _share(graph, seen, dealt[n], total))
        whole = shares[0]
        for share in shares[1:]:
            whole.losses += share.losses
            _add(whole.grads, share.grads)
            _add(whole.loads, share.loads)
        return whole

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown()


def _share(graph: Graph, seen: Parameters, groups: Sequence[Sequence[Row]], total: float) -> Share:
    leaves = {n: w.detach().requires_grad_(is_trained(n)) for n, w in seen.items()}
    share = Share()
    for group in groups:
        made = batch(group)
        output = graph(leaves, made)
        losses = functional.cross_entropy(output.logits, made.targets, reduction="none")
        ((losses * made.weights).sum() / total).backward()
        said = made.weights >= 1
        spent = torch.zeros(len(group)).index_add_(0, made.owners[said], losses.detach()[said])
        count = torch.bincount(made.owners[said], minlength=len(group))
        tasks = [row.task for row in group]
        share.losses += zip(tasks, spent.tolist(), count.tolist(), strict=True)
        _add(share.loads, output.loads)
    share.grads = {n: leaf.grad for n, leaf in leaves.items() if leaf.grad is not None}
    return share


def _add(mine: dict[T, Tensor], theirs: dict[T, Tensor]) -> None:
    for name, values in theirs.items():
        mine[name] = mine[name] + values if name in mine else values
